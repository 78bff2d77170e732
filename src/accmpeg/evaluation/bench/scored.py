"""A clip in memory with its references: what results on it are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.errors import SourceError
from accmpeg.evaluation.bench.cache import content_hash, read_results, write_results
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.plan import Group
from accmpeg.evaluation.bench.references import (
    FrameReference,
    confirmed_references,
    label_references,
    own_references,
)
from accmpeg.evaluation.bench.rows import BLOCK_FRAMES, MAIN_MEASURES
from accmpeg.evaluation.bench.score import Counts, frame_counts, judged_result
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.tasks import TaskName

__all__ = ["CACHE_NAME", "ScoredClip"]

CACHE_NAME = "cache"
_dnns: dict[Path, ServerDnn] = {}


def _loaded(card_file: Path) -> ServerDnn:
    """A server DNN on one thread, loaded once in a process: sweeps use a process for each core."""
    if card_file not in _dnns:
        _dnns[card_file] = load_dnn(card_file, threads=1)
    return _dnns[card_file]


class ScoredClip:
    """One clip and one server DNN. Nothing is decoded or inferred before it is needed."""

    def __init__(self, group: Group, folder: Path, settings: SweepSettings) -> None:
        self._group, self._folder, self._settings = group, folder, settings

    @cached_property
    def clip(self) -> Clip:
        clip = replace(self._group.clip.open(self._settings.limit), name=self._group.clip.name)
        if len(clip.frames) < 2:
            # All that crosses the network would be a keyframe's share of a GOP.
            raise SourceError(f"{clip.name} has one frame, whose bitrate says nothing: give a longer clip")
        return clip

    @property
    def clip_size_px(self) -> tuple[int, int]:
        return self.clip.width_px, self.clip.height_px

    @cached_property
    def dnn_size_px(self) -> tuple[int, int]:
        return self._group.dnn.card.input.stream_size_px(*self.clip_size_px)

    @property
    def task(self) -> TaskName:
        return self._group.dnn.card.task

    @property
    def measured(self) -> range:
        return self.clip.measured_frames(self._settings.step)

    @cached_property
    def dnn(self) -> ServerDnn:
        return _loaded(self._group.dnn.card_file)

    @cached_property
    def own(self) -> Mapping[int, Any]:
        """The server DNN's own answers on the pristine frames, by frame."""
        return self._answers(self.dnn, self._group.dnn.card.model_dump(mode="json"))

    def _answers(self, dnn: ServerDnn, card: object) -> Mapping[int, Any]:
        settings = self._settings
        name = content_hash(self._group.clip.sha256, card, settings.limit, settings.step)
        file = self._folder / CACHE_NAME / f"answers-{name[:32]}.npz"
        kept = read_results(file)
        if kept is None:
            kept = [dnn.infer(self.clip.frames[index]) for index in self.measured]
            write_results(file, kept)
        return dict(zip(self.measured, kept, strict=True))

    @cached_property
    def references(self) -> Mapping[str, Mapping[int, FrameReference]]:
        """What results are scored against, by name and frame."""
        spec, clip = self._group.dnn, self.clip
        own = list(self.own.values())
        found = {"own": own_references(own)}
        if spec.stronger is not None:
            judge = self._answers(
                _loaded(spec.stronger.card_file), spec.stronger.card.model_dump(mode="json")
            )
            found["confirmed"] = confirmed_references(
                own, spec.card, list(judge.values()), spec.stronger.card
            )
        references = {name: dict(zip(self.measured, each, strict=True)) for name, each in found.items()}
        if clip.labels is not None and spec.card.task == "detection":
            labelled = label_references(
                clip.labels,
                clip.label_classes,
                spec.card,
                min_height_px=self._settings.label_min_height_px,
            )
            if labelled is not None:
                references["labels"] = {
                    index: labelled[index] for index in self.measured if index < len(labelled)
                }
        return references

    @cached_property
    def objects(self) -> float | None:
        """Σ of the own reference's weights: how many objects the clip holds."""
        if self.task == "segmentation":
            return None
        dnn, card = self.dnn, self._group.dnn.card
        counts = [
            frame_counts(dnn.task, self.own[index], reference, card)
            for index, reference in self.references["own"].items()
        ]
        return round(float(sum(each[:, 2].sum() for each in counts)), 2)

    def counts(self, results: Sequence[Any]) -> dict[str, list[list[list[float]]]]:
        """Per reference and block of ten source frames, the sums of the score."""
        dnn, card = self.dnn, self._group.dnn.card
        first, blocks = (
            self.clip.warm_frames,
            math.ceil((len(self.clip.frames) - self.clip.warm_frames) / BLOCK_FRAMES),
        )
        counted: dict[str, list[list[list[float]]]] = {}
        for name, references in self.references.items():
            sums: list[Counts | None] = [None] * blocks
            for index, result in zip(self.measured, results, strict=True):
                if index not in references:
                    continue
                counts = frame_counts(dnn.task, result, references[index], card)
                block = (index - first) // BLOCK_FRAMES
                before = sums[block]
                sums[block] = counts if before is None else before + counts
            shape = next((each.shape for each in sums if each is not None), (1, 3))
            empty = np.zeros(shape)
            counted[name] = [np.round(empty if each is None else each, 5).tolist() for each in sums]
        return counted

    def accuracies(self, results: Sequence[Any]) -> dict[str, Any]:
        """The row's fields that are not S."""
        measures = self._measures(results)
        main = MAIN_MEASURES[self.task]
        return {
            "accuracy": measures.get(main),
            "label_accuracy": measures.get(f"labels_{main}"),
            "measures": measures,
        }

    def _measures(self, results: Sequence[Any]) -> dict[str, float]:
        task = self.dnn.task
        own = [self.own[index] for index in self.measured]
        found = _named(task.name, task.clip_accuracy(results, own))
        labelled = self.references.get("labels")
        if labelled:
            pairs = [
                (judged_result(result, labelled[index]), labelled[index].result)
                for index, result in zip(self.measured, results, strict=True)
                if index in labelled
            ]
            true = task.clip_accuracy([result for result, _ in pairs], [label for _, label in pairs])
            found |= {f"labels_{name}": value for name, value in _named(task.name, true).items()}
        return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}


def _named(task: TaskName, accuracy: Any) -> dict[str, float]:
    """The task's own measures under the names that people know."""
    extras = {name: value for name, value in accuracy.extras.items() if not name.startswith("iou_")}
    return {MAIN_MEASURES[task]: accuracy.value, **extras}
