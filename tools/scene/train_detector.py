"""Trains the demo's detector: `python -m scene.train_detector --out DIR`.

Renders its own frames (kept under DIR/frames), trains from scratch, writes DIR/detector.onnx and its card,
and resumes from what DIR already holds. Needs the `train` extra. Measure the result with
`python -m scene.measure_detector DIR/detector.card.toml`.
"""

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from accmpeg.demo.scene import CLASS_NAMES
from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, write_card
from accmpeg.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from scene.detector import Detector, detector_loss, export_detector, make_targets
from scene.training_frames import FIRST_TRAINING_SEED, FrameSet, read_frames, render_scene

__all__ = ["TrainingPlan", "augmented_crop", "train_detector", "write_detector_card"]

CHECKPOINT = "checkpoint.safetensors"
CROP_WIDTH_PX, CROP_HEIGHT_PX = 384, 256
CLASS_WEIGHTS = np.array([1.0, 1.0, 1.8, 2.0])
PAD_VALUE = 114


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how hard; `batch` is per worker, and each worker is one process with one thread."""

    out: Path
    scenes: int = 250
    steps: int = 1500
    batch: int = 8
    workers: int = 2
    learning_rate: float = 4e-3


class Crop:
    """A training example: RGB picture `(256, 384, 3)`, boxes, classes, and boxes that teach nothing."""

    def __init__(self, picture: NDArray[np.uint8], boxes: Any, class_ids: Any, ignored: Any) -> None:
        self.picture = picture
        self.boxes = boxes
        self.class_ids = class_ids
        self.ignored = ignored


def augmented_crop(frames: FrameSet, index: int, rng: np.random.Generator) -> Crop:
    """A random window on one picture, mostly round an object, in changed size, light and sharpness."""
    source, boxes, class_ids = frames.pictures[index], frames.boxes[index], frames.class_ids[index]
    height, width = source.shape[:2]
    scale = float(np.exp(rng.uniform(*np.log((0.75, 1.45) if rng.uniform() < 0.75 else (0.42, 0.75)))))
    view_w, view_h = CROP_WIDTH_PX / scale, CROP_HEIGHT_PX / scale
    if len(boxes):
        odds = CLASS_WEIGHTS[class_ids] / CLASS_WEIGHTS[class_ids].sum()
        x0, y0, x1, y1 = boxes[rng.choice(len(boxes), p=odds)]
        left = (x0 + x1) / 2 - view_w * rng.uniform(0.1, 0.9)
        top = (y0 + y1) / 2 - view_h * rng.uniform(0.15, 0.85)
    else:
        left, top = rng.uniform(0, width) - view_w / 2, rng.uniform(0, height) - view_h / 2
    left = float(np.clip(left, min(0.0, width - view_w), max(0.0, width - view_w)))
    top = float(np.clip(top, min(0.0, height - view_h), max(0.0, height - view_h)))
    flip = rng.uniform() < 0.5
    matrix = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    moved = (boxes - (left, top, left, top)) * scale
    if flip:
        matrix[0] = -matrix[0] + (0.0, 0.0, CROP_WIDTH_PX - 1)
        moved = np.stack(
            [CROP_WIDTH_PX - moved[:, 2], moved[:, 1], CROP_WIDTH_PX - moved[:, 0], moved[:, 3]], 1
        )
    size = (CROP_WIDTH_PX, CROP_HEIGHT_PX)
    border = (PAD_VALUE, PAD_VALUE, PAD_VALUE)
    picture = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR, borderValue=border)
    clipped = np.clip(moved, 0, (*size, *size)).astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    share = sides.prod(axis=1) / np.maximum((moved[:, 2:] - moved[:, :2]).prod(axis=1), 1e-6)
    there = sides.min(axis=1) > 0.5
    clear = there & (share >= 0.35) & (sides.max(axis=1) >= 7) & (sides.min(axis=1) >= 2.5)
    return Crop(
        _disturbed(np.asarray(picture), rng), clipped[clear], class_ids[clear], clipped[there & ~clear]
    )


def _disturbed(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Other light, a little noise, blur and JPEG: less than a hard-pressed encoder does."""
    gain = rng.uniform(0.78, 1.22) * rng.uniform(0.94, 1.06, 3)
    changed = picture.astype(np.float32) * gain.astype(np.float32) + np.float32(rng.uniform(-12, 12))
    if rng.uniform() < 0.5:
        sigma = np.float32(rng.uniform(0.5, 5))
        changed += sigma * rng.standard_normal((*picture.shape[:2], 1), dtype=np.float32)
    out: NDArray[np.uint8] = np.clip(changed, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.12:
        out = np.asarray(cv2.GaussianBlur(out, (3, 3), float(rng.uniform(0.3, 0.8))), np.uint8)
    if rng.uniform() < 0.2:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return out


def _batches(frames: FrameSet, batch: int, rng: np.random.Generator) -> Iterator[list[Crop]]:
    while True:
        order = rng.permutation(len(frames))
        for start in range(0, len(order) - batch + 1, batch):
            yield [augmented_crop(frames, int(index), rng) for index in order[start : start + batch]]


def train_detector(plan: TrainingPlan) -> Path:
    """Trains from DIR/frames, resuming DIR/checkpoint.safetensors, and returns the ONNX file."""
    spawn(_train_worker, (plan,), nprocs=plan.workers)  # type: ignore[no-untyped-call]
    detector = Detector(len(CLASS_NAMES))
    stored = load_checkpoint(plan.out / CHECKPOINT)
    assert stored is not None
    detector.load_state_dict(stored[0]["average"])
    path = plan.out / "detector.onnx"
    export_detector(detector, path)
    write_detector_card(path)
    return path


def _train_worker(rank: int, plan: TrainingPlan) -> None:
    """One of several equal processes: gradients are averaged, weights stay the same in all."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    meeting = plan.out / "meeting"
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan.workers
    )
    paths = sorted((plan.out / "frames").glob("scene-[0-9]*[0-9].npz"))[: plan.scenes]
    frames = read_frames(paths[rank :: plan.workers])
    torch.manual_seed(0)
    detector = Detector(len(CLASS_NAMES)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in detector.parameters() if p.ndim > 1]
    plain = [p for p in detector.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
        lr=plan.learning_rate,
    )
    blend = get_ema_multi_avg_fn(0.996)  # type: ignore[no-untyped-call]
    average = AveragedModel(detector, multi_avg_fn=blend, use_buffers=True)
    checkpoint = plan.out / CHECKPOINT
    first = 0
    if (stored := load_checkpoint(checkpoint)) is not None:
        groups, state = stored
        detector.load_state_dict(groups["detector"])
        average.module.load_state_dict(groups["average"])
        average.n_averaged.fill_(state["averaged"])
        restore_optimizer(detector, optimizer, groups["optimizer"])
        first = int(state["step"])
    batches = _batches(frames, plan.batch, np.random.default_rng((first, rank)))
    detector.train()
    for step in range(first, plan.steps):
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = (
                plan.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
            )
        crops = next(batches)
        pictures = (
            torch.from_numpy(np.stack([crop.picture for crop in crops])).permute(0, 3, 1, 2).float() / 255
        )
        targets = make_targets(
            [crop.boxes for crop in crops],
            [crop.class_ids for crop in crops],
            [crop.ignored for crop in crops],
            len(CLASS_NAMES),
            (CROP_HEIGHT_PX, CROP_WIDTH_PX),
        )
        focal, sides = detector_loss(detector(pictures), targets, len(CLASS_NAMES))
        optimizer.zero_grad()
        (focal + 2 * sides).backward()  # type: ignore[no-untyped-call]
        _average_gradients(detector, plan.workers)
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
        average.update_parameters(detector)
        if rank == 0 and (step + 1) % 20 == 0:
            typer.echo(
                f"step {step + 1}/{plan.steps}: classes {focal.item():.3f}, boxes {sides.item():.3f}",
                err=True,
            )
        if rank == 0 and ((step + 1) % 100 == 0 or step + 1 == plan.steps):
            groups = {
                "detector": detector.state_dict(),
                "average": average.module.state_dict(),
                "optimizer": optimizer_tensors(detector, optimizer),
            }
            save_checkpoint(checkpoint, groups, {"step": step + 1, "averaged": int(average.n_averaged)})
    distributed.destroy_process_group()
    meeting.unlink(missing_ok=True)


def _average_gradients(detector: Detector, workers: int) -> None:
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def write_detector_card(model: Path) -> Path:
    """Writes the card beside an exported detector and returns its path."""
    card = DnnCard(
        name="accmpeg-demo-detector",
        task="detection",
        adapter="onnx",
        model=model.name,
        sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        classes=list(CLASS_NAMES),
        score_threshold=0.3,
        nms_iou=0.5,
        input=InputCard(name="images", width_px=640, height_px=640, size_multiple=32),
        head=HeadCard(name="yolo"),
        source="trained from scratch by scene.train_detector on frames rendered by accmpeg.demo.scene",
        licence="Apache-2.0",
    )
    path = model.with_name("detector.card.toml")
    write_card(card, path)
    return path


def _render(job: tuple[int, Path]) -> None:
    cv2.setNumThreads(1)
    render_scene(*job)


def main(
    out: Annotated[Path, typer.Option(help="Folder for frames, checkpoint, detector.onnx and its card.")],
    scenes: Annotated[int, typer.Option(help="Streets to train on.")] = 250,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 1500,
    workers: Annotated[int, typer.Option(help="Processes, one core each.")] = 2,
) -> None:
    """Renders frames, trains the demo's detector and exports it with its card."""
    frames = out / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, frames) for seed in range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + scenes)]
    with ProcessPoolExecutor(workers) as pool:
        for count, _ in enumerate(pool.map(_render, jobs), start=1):
            if count % 20 == 0:
                typer.echo(f"rendered {count}/{scenes} streets", err=True)
    path = train_detector(TrainingPlan(out, scenes, steps, workers=workers))
    typer.echo(f"wrote {path} and its card; see scene.measure_detector for its accuracy", err=True)


if __name__ == "__main__":
    typer.run(main)
