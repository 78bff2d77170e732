import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from accmpeg.accmodel import AccModel, read_accmodel_card
from accmpeg.errors import TrainingError, UsageError
from accmpeg.tasks.segmentation import IGNORED
from accmpeg.training.build import checkpoint_path, train_accmodel
from accmpeg.training.export import count_macs, count_parameters, export_onnx
from accmpeg.training.fitting import Progress, predict_maps, train_network
from accmpeg.training.labels import read_labels, read_manifest, write_manifest
from accmpeg.training.losses import accmodel_loss, read_points
from accmpeg.training.network import AccModelNetwork
from accmpeg.training.samples import class_shares, collate, random_view, split_by_clip
from accmpeg.training.settings import LossWeights, TrainingSettings
from tests.training.synthetic_labels import SMALL, synthetic_label, write_synthetic_labels


def test_training_learns_what_carries_the_accgrad(trained: Path) -> None:
    card = read_accmodel_card(trained)
    held_out, unseen = card.quality
    for quality in (held_out, unseen):
        assert quality.top_share is not None
        assert quality.top_share > 0.9
        assert quality.objects_iou is not None
        assert quality.objects_iou > 0.6
        assert quality.objects_recall is not None
        assert quality.objects_recall > 0.8
    assert (unseen.footage, unseen.frames, unseen.clips) == ("unseen", 6, 6)
    assert card.training is not None
    assert (card.training.clips, card.training.held_out_clips) == (7, 1)
    assert not checkpoint_path(trained).exists()


def test_cost_is_within_the_promised_limits(trained: Path) -> None:
    card = read_accmodel_card(trained)
    model = onnx.load(trained)
    assert card.cost is not None
    assert card.cost.macs == count_macs(model, 1280, 720) <= 0.35e9
    assert card.cost.parameters == count_parameters(model) <= 600_000
    # Counted by hand for the luma stem and the head: 8x8 weights x 32 channels at 88x160, 64 x 2 at 44x80.
    assert count_macs(model, 640, 352) == count_macs(model, 1280, 720) > 64 * 32 * 88 * 160 + 128 * 44 * 80


def test_exported_file_computes_what_the_network_does(tmp_path: Path, trained: Path) -> None:
    torch.manual_seed(1)
    network = AccModelNetwork()
    label = synthetic_label(np.random.default_rng(0), 320, 192)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    weights = export_onnx(network)
    path = tmp_path / "random.onnx"
    path.write_bytes(weights)
    card = read_accmodel_card(trained)
    text = trained.with_name("discs.card.toml").read_text()
    text = text.replace("discs.onnx", "random.onnx").replace(card.sha256, hashlib.sha256(weights).hexdigest())
    (tmp_path / "random.card.toml").write_text(text)
    scores = AccModel.load(path).score(label.planes, label.width_px, label.height_px)
    maps = predict_maps(network, label)
    np.testing.assert_allclose(scores.accgrad, maps["accgrad"], atol=1e-4)
    assert scores.objects is not None
    np.testing.assert_allclose(scores.objects, 1 / (1 + np.exp(-maps["objects"])), atol=1e-4)


def test_resume_goes_on_as_if_never_interrupted(labels: Path, tmp_path: Path) -> None:
    sets, settings = [read_labels(labels)], TrainingSettings(epochs=2, **SMALL)
    whole = train_network(sets, tmp_path / "whole.safetensors", settings)

    def interrupt(progress: Progress) -> None:
        if progress.epoch > 0.5:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "cut.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_network(sets, checkpoint, settings, progress=interrupt)
    assert checkpoint.exists()
    seen: list[float] = []
    rest = train_network(sets, checkpoint, settings, progress=lambda p: seen.append(p.epoch))
    assert min(seen) > 0.5
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(rest.network.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_run_is_refused(labels: Path, tmp_path: Path) -> None:
    sets, settings = [read_labels(labels)], TrainingSettings(epochs=1, **SMALL)
    checkpoint = tmp_path / "state.safetensors"
    train_network(sets, checkpoint, settings)
    with pytest.raises(TrainingError, match="--restart"):
        train_network(sets, checkpoint, replace(settings, seed=3))
    others = write_synthetic_labels(tmp_path / "others", seed=5)
    with pytest.raises(TrainingError, match=r"other labels.*--restart"):
        train_network([read_labels(others)], checkpoint, settings)
    checkpoint.write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"damaged.*--restart"):
        train_network(sets, checkpoint, settings)


def test_patience_and_time_end_a_run(labels: Path, tmp_path: Path) -> None:
    sets = [read_labels(labels)]
    patient = TrainingSettings(epochs=50, patience=1, learning_rate=1e-9, **SMALL)
    stuck = train_network(sets, tmp_path / "a.safetensors", patient)
    assert stuck.epochs < 10
    assert stuck.ended == "no improvement"
    brief = train_network(sets, tmp_path / "b.safetensors", TrainingSettings(minutes=0.01, **SMALL))
    assert brief.epochs < 40
    assert brief.ended == "minutes"
    enough = train_network(
        sets, tmp_path / "c.safetensors", TrainingSettings(epochs=1, minutes=60.0, **SMALL)
    )
    assert (enough.epochs, enough.ended) == (1, "epochs")


def test_a_short_time_still_sees_the_whole_schedule(labels: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = TrainingSettings(epochs=1000, minutes=0.05, **SMALL)
    trained = train_network([read_labels(labels)], tmp_path / "s.safetensors", settings, progress=seen.append)
    assert trained.epochs < 1000
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    assert seen[-1].fraction > 0.7
    known = [p for p in seen if not math.isnan(p.epoch_s)]
    assert all(p.epoch <= p.epochs < 1000 for p in known)
    assert all(p.epoch_s > 0 for p in known)


def test_split_holds_out_whole_clips_and_is_stable(labels: Path, tmp_path: Path) -> None:
    items = list(read_labels(labels))
    training, held_out = split_by_clip(items, 0.25)
    assert len(training) + len(held_out) == len(items)
    assert not {i.clip for i in training} & {i.clip for i in held_out}
    assert len({i.clip for i in held_out}) == 2
    assert split_by_clip(items[::-1], 0.25)[1] == held_out[::-1]
    single = list(read_labels(write_synthetic_labels(tmp_path / "one", frames=5, clips=1)))
    training, held_out = split_by_clip(single, 0.2)
    assert [i.frame_index for i in held_out] == [4]


def test_views_keep_pixels_and_macroblocks_together() -> None:
    rng = np.random.default_rng(0)
    label = synthetic_label(rng, 320, 192)
    views = [random_view(label, rng, 96, 160) for _ in range(30)]
    batch = collate(views)
    assert batch.y.shape == (30, 1, 96, 160)
    assert batch.uv.shape == (30, 2, 48, 80)
    assert batch.valid.sum() == sum(v.accgrad_log2.numel() for v in views)
    agreed = []
    for view in views:
        bright = torch.nn.functional.avg_pool2d(view.y, 7, 1, 3, count_include_pad=False)
        sampled = torch.nn.functional.grid_sample(bright[None], view.points[None, None], align_corners=False)[
            0, 0, 0
        ]
        if view.objects.any() and not view.objects.all():
            agreed.append(sampled[view.objects == 1].mean() > 1.2 * sampled[view.objects == 0].mean())
    assert len(agreed) > 10
    assert all(agreed)


def test_labels_without_objects_give_a_network_without(tmp_path: Path) -> None:
    labels = read_labels(write_synthetic_labels(tmp_path / "plain", frames=6, clips=3, objects=False))
    trained = train_network([labels], tmp_path / "s.safetensors", TrainingSettings(epochs=1, **SMALL))
    assert trained.network.heads == ("accgrad",)


def test_class_shares_cover_each_macroblock() -> None:
    label = synthetic_label(np.random.default_rng(0), 320, 200, objects=False)
    class_map = np.zeros((100, 160), np.uint8)  # half the frame's resolution
    class_map[:, 80:] = 2
    class_map[:8, :8] = 1
    class_map[92:] = IGNORED
    shares = class_shares(replace(label, result={"classes": class_map}), 3)
    assert shares.shape == (13, 20, 3)
    np.testing.assert_array_equal(shares[0, 0], [0, 1, 0])
    np.testing.assert_array_equal(shares[5, 3], [1, 0, 0])
    np.testing.assert_array_equal(shares[5, 15], [0, 0, 1])
    assert shares[11].sum(axis=-1).max() == pytest.approx(
        0.5
    )  # rows 176 to 192 px, of which 184 on unlabelled
    assert class_shares(label, 3).shape == (13, 20, 0)


def test_context_is_learnt_from_class_maps_and_leaves_the_model(tmp_path: Path) -> None:
    labels = read_labels(write_synthetic_labels(tmp_path / "maps", objects=False, class_maps=True))
    trained = train_network([labels], tmp_path / "s.safetensors", TrainingSettings(epochs=1, **SMALL)).network
    assert trained.context is not None
    assert trained.context.out_channels == 2
    exported = onnx.load_from_string(export_onnx(trained))
    assert sum(node.op_type == "Conv" for node in exported.graph.node) == sum(
        isinstance(module, torch.nn.Conv2d) and module is not trained.context for module in trained.modules()
    )

    torch.manual_seed(0)
    network = AccModelNetwork(("accgrad",), context_classes=2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    views = [random_view(item.load(), np.random.default_rng(1), 160, 224, 2) for item in list(labels)[:4]]
    batch, weights = collate(views), LossWeights(share=0.0, level=0.0, context=1.0)
    for _ in range(15):
        scores, context = network.with_context(batch.y, batch.uv)
        loss = accmodel_loss(scores, batch, network.heads, weights, context)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert context is not None
    logits = read_points(context.detach(), batch.points)
    right = logits.argmax(1) == batch.classes.argmax(2)
    assert right[batch.valid == 1].float().mean() > 0.9


def test_a_warm_start_begins_where_the_other_ended(labels: Path, trained: Path, tmp_path: Path) -> None:
    start = trained.with_suffix(".safetensors")
    sets = [read_labels(labels)]
    still = TrainingSettings(epochs=1, learning_rate=1e-12, **SMALL)
    shares: dict[Path | None, float] = {}
    for init in (None, start):
        qualities: list[float] = []
        train_network(
            sets,
            tmp_path / f"{init is None}.safetensors",
            replace(still, init=init),
            progress=lambda p, qualities=qualities: qualities.append(
                0.0 if p.quality is None else p.quality.top_share
            ),
        )
        shares[init] = qualities[-1]
    assert shares[start] > 0.9 > shares[None] + 0.1


def test_a_warm_start_may_have_other_outputs(trained: Path, tmp_path: Path) -> None:
    labels = read_labels(write_synthetic_labels(tmp_path / "plain", frames=6, clips=3, objects=False))
    settings = TrainingSettings(epochs=1, init=trained.with_suffix(".safetensors"), **SMALL)
    assert train_network([labels], tmp_path / "s.safetensors", settings).network.heads == ("accgrad",)


def test_weights_that_do_not_fit_are_refused(labels: Path, tmp_path: Path) -> None:
    sets = [read_labels(labels)]
    for content in (None, b"junk", safetensors.torch.save({"stem_y.weight": torch.zeros(3)})):
        start = tmp_path / "start.safetensors"
        if content is not None:
            start.write_bytes(content)
        settings = TrainingSettings(epochs=1, init=start, **SMALL)
        with pytest.raises(TrainingError, match="can't start from"):
            train_network(sets, tmp_path / "c.safetensors", settings)


def test_frames_without_objects_do_not_teach_the_ranking() -> None:
    rng = np.random.default_rng(0)
    network = AccModelNetwork()
    seen = synthetic_label(rng, 320, 192)
    nothing = replace(seen, objects=np.zeros_like(seen.objects))
    weights = LossWeights(level=0.0, objects=0.0)
    for label, learns in ((seen, True), (nothing, False)):
        batch = collate([random_view(label, np.random.default_rng(1), 160, 224) for _ in range(4)])
        loss = accmodel_loss(network(batch.y, batch.uv), batch, network.heads, weights)
        assert (float(loss.detach()) > 0) == learns


def test_what_cannot_be_trained_from_is_said(labels: Path, tmp_path: Path) -> None:
    other = write_synthetic_labels(tmp_path / "other", frames=3, clips=3, sha256="cd" * 32)
    with pytest.raises(TrainingError, match="one DNN at a time"):
        train_accmodel([labels, other], out=tmp_path / "m.onnx", settings=TrainingSettings(epochs=1))
    # DNNs without a file of weights (elsewhere, in code) have no hash: their names tell them apart.
    nameless = [tmp_path / "one", tmp_path / "two"]
    for folder in nameless:
        write_synthetic_labels(folder, frames=3, clips=3)
        manifest = read_manifest(folder) or {}
        manifest["dnn"] |= {"name": folder.name, "sha256": None}
        write_manifest(folder, manifest)
    with pytest.raises(TrainingError, match="labels of two, not of the same one"):
        train_accmodel(nameless, out=tmp_path / "m.onnx", settings=TrainingSettings(epochs=1))
    with pytest.raises(UsageError, match=r"\.onnx"):
        train_accmodel([labels], out=tmp_path / "m.pt", settings=TrainingSettings(epochs=1))
    lone = write_synthetic_labels(tmp_path / "lone", frames=1)
    with pytest.raises(TrainingError, match="label more footage"):
        train_accmodel([lone], out=tmp_path / "m.onnx", settings=TrainingSettings(epochs=1))
    with pytest.raises(TrainingError, match="device"):
        train_accmodel(
            [labels], out=tmp_path / "m.onnx", settings=TrainingSettings(epochs=1, device="toaster")
        )


def test_footage_that_judges_is_not_trained_on_whatever_it_was_labelled_as(tmp_path: Path) -> None:
    """A file given by itself is clip "cam", and "site/cam" where its folder was given."""
    folders = [write_synthetic_labels(tmp_path / name, frames=3, clips=3) for name in ("file", "folder")]
    journal = folders[1] / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"clip": "', '"clip": "site/'))
    with pytest.raises(TrainingError, match="0 labelled frames"):
        train_accmodel(
            folders[:1],
            out=tmp_path / "m.onnx",
            settings=TrainingSettings(epochs=1),
            validation=folders[1:],
        )
