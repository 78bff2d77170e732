"""`torch.export` files: programs run and differentiate; what could run code while loading is refused."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import HeadCard, InputCard
from accmpeg.dnn.weights import sha256_of
from accmpeg.errors import CardError, DnnError, UsageError, WeightsError
from tests.dnn.adapter_checks import open_and_check, rgb_frame, write_adapter_card
from tests.dnn.user_networks import Grid

ANY_SIZE = InputCard(name="x", width_px=96, height_px=96, size_multiple=32)


class Segmenter(torch.nn.Module):
    """Down, up and a mapping as output: sizes computed from the input's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.down = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Conv2d(8, 3, 1)

    def forward(self, x):
        features = self.norm(self.down(x)).relu()
        size = (x.shape[2] // 2 + 3, x.shape[3] // 2 + 3)
        features = torch.nn.functional.interpolate(features, size, mode="bilinear")
        return {"aux": features.mean(dim=(2, 3)), "logits": self.head(features)}


class BoxGrid(Grid):
    def forward(self, x):
        return super().forward(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    example = torch.rand(2, 3, 64, 96)
    sizes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=16, max=4096),
        3: torch.export.Dim("width", min=16, max=4096),
    }
    dynamic = torch.export.export(Segmenter().eval(), (example,), dynamic_shapes=(sizes,))
    torch.export.save(dynamic, folder / "any_size.pt2")
    torch.export.save(torch.export.export(BoxGrid().eval(), (example[:1],)), folder / "fixed.pt2")
    return folder


def write_segmentation_card(folder, model, **changes):
    settings = {"task": "segmentation", "head": HeadCard(name="logits", outputs=["logits"])} | changes
    return write_adapter_card(folder, "torch_export", model, **settings)


def test_any_size(files, tmp_path):
    dnn = open_and_check(write_segmentation_card(tmp_path, files / "any_size.pt2", input=ANY_SIZE))
    assert dnn.network.max_batch is None
    assert dnn.infer(rgb_frame(96, 96)).shape == (51, 51)


def test_one_size(files, tmp_path):
    model = files / "fixed.pt2"
    card = write_adapter_card(tmp_path, "torch_export", model, nms_iou=0.5, sha256=sha256_of(model))
    assert open_and_check(card).network.max_batch == 1


def test_cards_that_do_not_fit(files, tmp_path):
    def loading(model, **changes):
        return load_dnn(write_segmentation_card(tmp_path, files / model, **changes))

    with pytest.raises(DnnError, match="has the input 'x', but the card of torch_export says 'images'"):
        loading("any_size.pt2", input=InputCard(name="images", width_px=96, height_px=64))
    with pytest.raises(DnnError, match="takes only 96x64 pictures"):
        loading("fixed.pt2", input=InputCard(name="x", width_px=64, height_px=64))
    with pytest.raises(DnnError, match=r"takes only 96x64 pictures.*with a size_multiple"):
        loading("fixed.pt2", input=ANY_SIZE)
    with pytest.raises(CardError, match="it knows none"):
        loading("any_size.pt2", options={"size": 3})
    with pytest.raises(DnnError, match=r"no output 'logit' \(it has aux, logits\)"):
        loading("any_size.pt2", head=HeadCard(name="logits", outputs=["logit"])).infer(rgb_frame())
    with pytest.raises(UsageError, match="no device 'gpu'"):
        load_dnn(write_segmentation_card(tmp_path, files / "any_size.pt2"), device="gpu")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"PK\3\4 no"]
)
def test_damaged_files(files, tmp_path, damage):
    (tmp_path / "net.pt2").write_bytes(damage((files / "any_size.pt2").read_bytes()))
    with pytest.raises(WeightsError, match=r"is no torch\.export file"):
        load_dnn(write_segmentation_card(tmp_path, "net.pt2"))


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edit(program, change):
    described = json.loads(program)
    change(described)
    return json.dumps(described).encode()


def trap_sample_inputs(members, mark):
    members["data/sample_inputs/model.pt"] = pickled(((Trap(mark),), {}))


def trap_weights(members, mark):
    members["data/weights/weight_0"] = pickled(Trap(mark))
    config = "data/weights/model_weights_config.json"
    members[config] = members[config].replace(b'"use_pickle": false', b'"use_pickle": true', 1)


def trap_older_weights(members, mark):
    members["data/weights/model.pt"] = pickled({"a": Trap(mark)})


def trap_opaque_constant(members, mark):
    members["data/constants/opaque_obj_0"] = pickle.dumps(Trap(mark))


def trap_compiled_library(members, mark):
    members["data/aotinductor/model/net.so"] = b"\x7fELF"


def trap_expression(members, mark):
    code = f"open({str(mark)!r}, 'w')"

    def change(described):
        text = json.dumps(described)
        start = text.index('"expr_str": "') + len('"expr_str": "')
        described.clear()
        described.update(json.loads(text[:start] + code + text[text.index('"', start) :]))

    members["models/model.json"] = edit(members["models/model.json"], change)


def trap_operator(members, mark):
    def change(described):
        described["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.os.system"

    members["models/model.json"] = edit(members["models/model.json"], change)


def trap_input_name(members, mark):
    code = f"x=open({str(mark)!r}, 'w')"

    def change(described):
        text = json.dumps(described).replace('"name": "x"', json.dumps({"name": code})[1:-1])
        described.clear()
        described.update(json.loads(text))

    members["models/model.json"] = edit(members["models/model.json"], change)


def trap_output_names(members, mark):
    def change(described):
        for entry in described["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["out_spec"] = entry["signature"]["out_spec"].replace("logits", "a(b)")

    members["models/model.json"] = edit(members["models/model.json"], change)


@pytest.mark.parametrize(
    "trap",
    [
        trap_sample_inputs,
        trap_weights,
        trap_older_weights,
        trap_opaque_constant,
        trap_compiled_library,
        trap_expression,
        trap_operator,
        trap_input_name,
        trap_output_names,
    ],
)
def test_files_that_could_run_code_are_refused(files, tmp_path, trap):
    mark = tmp_path / "ran"
    with zipfile.ZipFile(files / "any_size.pt2") as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    trap(members, mark)
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(f"net/{name}", data)
    with pytest.raises(WeightsError, match=r"not loaded because that could run code: (it|'down)"):
        load_dnn(write_segmentation_card(tmp_path, "net.pt2"))
    assert not mark.exists()


def test_a_rewritten_but_harmless_file_still_loads(files, tmp_path):
    with zipfile.ZipFile(files / "any_size.pt2") as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(f"net/{name}", data)
    open_and_check(write_segmentation_card(tmp_path, "net.pt2"))
