"""Reducto: frames that differ little are left out; the server finds how much difference matters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat
from accmpeg.evaluation.methods.skipping import ChosenFrames, LastResult
from accmpeg.evaluation.methods.tracking import Grey, grey_picture
from accmpeg.media.encoder import EncoderSettings

__all__ = [
    "FEATURES",
    "PROFILE_FRAMES",
    "ROWS",
    "SEGMENT_FRAMES",
    "TARGET_ACCURACY",
    "Sample",
    "ThresholdTable",
    "best_threshold",
    "chosen_frames",
]

TARGET_ACCURACY = 0.9
PROFILE_FRAMES = 20
SEGMENT_FRAMES = 10
_CANDIDATES = 24
_CLUSTERS = 4
_ROUNDS = 20
_REACH = 1.5
"""A segment further from its cluster than this times the furthest known one is unfamiliar."""
_LEAST_REACH = 1e-3
"""Differences are shares of the picture: below this they are noise."""
_FLOAT_BYTES = 4
_CHANGED_LUMA = 21
_BLUR = (5, 5)
_CANNY = (40, 120)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Feature:
    """A difference between two pictures: each is prepared once, pairs are compared; 0 is no difference."""

    prepare: Callable[[Grey], Grey]
    difference: Callable[[Grey, Grey], float]


def _changed(a: Grey, b: Grey) -> Grey:
    return np.asarray(cv2.threshold(cv2.absdiff(a, b), _CHANGED_LUMA, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _changed_share(a: Grey, b: Grey) -> float:
    return cv2.countNonZero(_changed(a, b)) / a.size


def _blurred(picture: Grey) -> Grey:
    return np.asarray(cv2.GaussianBlur(picture, _BLUR, 0), np.uint8)


def _largest_area(a: Grey, b: Grey) -> float:
    grown = cv2.dilate(_changed(a, b), None)  # type: ignore[call-overload]
    outlines, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max((cv2.contourArea(outline) for outline in outlines), default=0.0) / a.size


def _edges(picture: Grey) -> Grey:
    return np.asarray(cv2.Canny(_blurred(picture), *_CANNY), np.uint8)


FEATURES: dict[str, Feature] = {
    "pixel": Feature(lambda picture: picture, _changed_share),
    "area": Feature(_blurred, _largest_area),
    "edge": Feature(_edges, _changed_share),
}
"""Cheapest first. Share of changed pixels; largest changed region; share of changed edge pixels."""


def chosen_frames(differences: Sequence[float], threshold: float) -> list[int]:
    """The frames of a segment that are sent, the first one always: n differences part n + 1 frames.

    A frame goes when the differences since the last one that went add up to the threshold.

    >>> chosen_frames([0.1, 0.1, 0.1, 0.1], 0.2)
    [0, 2, 4]
    """
    chosen, since = [0], 0.0
    for index, difference in enumerate(differences, start=1):
        since += difference
        if since >= threshold - 1e-9:
            chosen.append(index)
            since = 0.0
    return chosen


def best_threshold(
    differences: Sequence[float], accuracy: Callable[[int, int], float], target: float = TARGET_ACCURACY
) -> tuple[float, int]:
    """The largest threshold that keeps a segment's mean accuracy at the target, and how many frames it sends.

    `accuracy(i, j)` is that of frame i's result used for frame j.
    """
    frames = len(differences) + 1
    # A little above the sum, also where it is zero: then the first frame alone is sent.
    for threshold in np.linspace(sum(differences) * 1.01 + 1e-6, 0, _CANDIDATES)[:-1]:
        chosen = chosen_frames(differences, float(threshold))
        if len(chosen) == frames:
            break
        newest = [max(i for i in chosen if i <= j) for j in range(frames)]
        if np.mean([accuracy(i, j) for j, i in enumerate(newest)]) >= target:
            return float(threshold), len(chosen)
    return 0.0, frames


@dataclass(frozen=True)
class Sample:
    """A segment that the server has seen whole: its differences, and the threshold that would have done."""

    differences: Sequence[float]
    threshold: float


@dataclass(frozen=True)
class ThresholdTable:
    """The hash table: what a segment's differences look like ▶ the threshold to filter it with."""

    feature: str
    centres: Floats
    """`(clusters, 8)`: quantiles of differences."""
    thresholds: Floats
    """`(clusters,)`: the least of each cluster's samples, so that the target holds for all of them."""
    reach: float

    @classmethod
    def fit(cls, feature: str, samples: Sequence[Sample]) -> "ThresholdTable":
        """K-means on the samples' differences."""
        keys = np.stack([_key(sample.differences) for sample in samples])
        thresholds = np.asarray([sample.threshold for sample in samples], np.float32)
        clusters = min(_CLUSTERS, len(np.unique(keys, axis=0)))
        # Started from ranks of the mean, not at random: two runs give the same table.
        ranks = np.argsort(np.argsort(keys.mean(axis=1), kind="stable"))
        labels = (ranks * clusters // len(samples)).astype(np.int32)[:, None]
        if clusters > 1:
            stop = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, _ROUNDS, 1e-9)
            cv2.kmeans(keys, clusters, labels, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
        used = np.unique(labels)
        centres = np.stack([keys[labels[:, 0] == label].mean(axis=0) for label in used])
        nearest = np.linalg.norm(keys[:, None] - centres[None], axis=2).argmin(axis=1)
        least = [thresholds[nearest == i].min(initial=np.inf) for i in range(len(centres))]
        kept = np.isfinite(least)
        centres, least_kept = centres[kept], np.asarray(least, np.float32)[kept]
        furthest = np.linalg.norm(keys[:, None] - centres[None], axis=2).min(axis=1).max()
        return cls(feature, centres, least_kept, _REACH * max(float(furthest), _LEAST_REACH))

    def threshold(self, differences: Sequence[float]) -> float | None:
        """The threshold for a segment; None for one unlike all that the server has seen."""
        distances = np.linalg.norm(self.centres - _key(differences), axis=1)
        nearest = int(distances.argmin())
        return float(self.thresholds[nearest]) if distances[nearest] <= self.reach else None

    @property
    def size_bytes(self) -> int:
        return _FLOAT_BYTES * (self.centres.size + self.thresholds.size + 2)


def _key(differences: Sequence[float]) -> Floats:
    return np.quantile(differences, np.linspace(0, 1, 8)).astype(np.float32)


def _open(target: float, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """Frames that change the result, at QP `quality`; the server says how much difference that takes.

    Li et al., *Reducto: On-Camera Filtering for Resource-Efficient Real-Time Video Analytics*, SIGCOMM 2020.
    The first 20 frames are sent one by one, each with three differences from the one before
    (12 bytes): share of changed pixels, largest changed area, share of changed edges, on the luma at 640
    pixels. The server runs its DNN on all of them and finds, beside answering, for each stretch of 10 frames
    the largest threshold per feature that still gives `target` of the unfiltered accuracy; it takes the
    feature that leaves out most frames, clusters the stretches by K-means, and sends the table (cluster
    centre, threshold) back. With the table the camera gathers segments of 10 frames, looks up the threshold
    of each by its differences, and sends the frames at which the differences since the last sent one add up
    to it, all when the segment is over; for a frame left out the server gets a notice of 8 bytes and uses
    its last result again. A segment that is unlike all known ones goes unfiltered, with its differences (4
    bytes each), and the server renews the table from it. All of this counts, the table's bytes down the link
    too.

    The target is the paper's own knob; 0.9 is its default.

    Departures. The paper's segments are of a second and its profile of minutes; ours fit clips of seconds.
    The authors' code looks thresholds up by nearest neighbours of a 30-bin histogram and tunes what is
    unfamiliar by hand per camera; ours clusters, as the paper says, eight quantiles of the differences,
    takes a cluster's least threshold and derives the reach from the profile. Target accuracy is the mean of
    the task's per-frame accuracy, of reused results against the server's own on the frames it received.
    """
    return _Filtering(session, stream.settings(point, aq_mode=None), target)


_REDUCTO = Method(
    name="reducto",
    family="skipping",
    source="Li et al., SIGCOMM 2020",
    knobs={"target": TARGET_ACCURACY},
    chunk_frames=SEGMENT_FRAMES,
    open=partial(_open, TARGET_ACCURACY),
)

ROWS = (
    _REDUCTO,
    *(_REDUCTO.with_knob("target", target, partial(_open, target)) for target in (0.8, 0.95)),
)


class _Server:
    """The server's side: results on what was sent whole, and the table learnt from them."""

    def __init__(self, session: Session, target: float) -> None:
        self._session, self._target = session, target
        self._results: dict[int, Any] = {}
        self._accuracies: dict[tuple[int, int], float] = {}
        self._feature = ""
        self._samples: list[Sample] = []
        self._table: ThresholdTable | None = None

    def keep(self, index: int, result: Any) -> None:
        self._results[index] = result

    def learn_profile(self, differences: dict[str, list[float]]) -> None:
        """From all features of the first frames; `differences[feature][i]` is of frame i from frame i − 1."""
        fewest = None
        for feature, values in differences.items():
            found = [
                self._sample(start, values[start + 1 : start + SEGMENT_FRAMES])
                for start in range(PROFILE_FRAMES - SEGMENT_FRAMES + 1)
            ]
            sent = sum(frames for _, frames in found)
            if fewest is None or sent < fewest:
                fewest, self._feature, self._samples = sent, feature, [sample for sample, _ in found]
        self._table = ThresholdTable.fit(self._feature, self._samples)

    def learn_segment(self, start: int, differences: Sequence[float]) -> None:
        """From the chosen feature of a segment that came unfiltered."""
        self._samples.append(self._sample(start, differences)[0])
        self._table = ThresholdTable.fit(self._feature, self._samples)

    def _sample(self, start: int, differences: Sequence[float]) -> tuple[Sample, int]:
        threshold, frames = best_threshold(
            differences, lambda i, j: self._accuracy(start + i, start + j), self._target
        )
        return Sample(differences, threshold), frames

    def _accuracy(self, used: int, index: int) -> float:
        if (used, index) not in self._accuracies:
            task = self._session.context.dnn.task
            accuracy = task.frame_accuracy(self._results[used], self._results[index])
            self._accuracies[used, index] = accuracy
        return self._accuracies[used, index]

    def send_table(self) -> None:
        """To the camera, when it is done; no result waits for it."""
        assert self._table is not None
        self._session.feedback(self._table, self._table.size_bytes)


class _Filtering:
    def __init__(self, session: Session, settings: EncoderSettings, target: float) -> None:
        self._session = session
        self._frames = ChosenFrames(session, settings)
        self._last = LastResult(session)
        self._server = _Server(session, target)
        self._table: ThresholdTable | None = None
        self._prepared: dict[str, Grey] = {}
        self._profile: dict[str, list[float]] = {feature: [] for feature in FEATURES}
        self._segment: list[tuple[int, av.VideoFrame]] = []
        self._differences: list[float] = []

    def push(self, index: int, frame: av.VideoFrame) -> None:
        for table in self._session.arrived():
            self._table = table
        features = [*FEATURES] if self._table is None else [self._table.feature]
        with self._session.camera("difference" if self._table is not None else "three differences"):
            differences = self._difference(frame, features)
        if index < PROFILE_FRAMES:
            self._session.upload(len(differences) * _FLOAT_BYTES)
            self._deliver(self._frames.send(index, frame), learn=True)
            for feature, value in differences.items():
                self._profile[feature].append(value)
            if index == PROFILE_FRAMES - 1:
                with self._session.server("thresholds", beside=True):
                    self._server.learn_profile(self._profile)
                self._server.send_table()
        elif self._table is None:
            self._deliver(self._frames.send(index, frame))
        else:
            if self._segment:
                self._differences.append(differences[self._table.feature])
            self._segment.append((index, frame))
            if len(self._segment) == SEGMENT_FRAMES:
                self._send_segment(self._table)

    def finish(self) -> None:
        if self._segment and self._table is not None:
            self._send_segment(self._table)
        self._deliver(self._frames.finish())

    def _difference(self, frame: av.VideoFrame, features: Sequence[str]) -> dict[str, float]:
        picture = grey_picture(frame)
        before, self._prepared = self._prepared, {name: FEATURES[name].prepare(picture) for name in features}
        return {
            name: FEATURES[name].difference(before[name], prepared) if name in before else 0.0
            for name, prepared in self._prepared.items()
        }

    def _send_segment(self, table: ThresholdTable) -> None:
        segment, differences = self._segment, self._differences
        self._segment, self._differences = [], []
        threshold = table.threshold(differences) if differences else 0.0
        chosen = set(chosen_frames(differences, threshold or 0.0))
        learn = threshold is None and len(segment) == SEGMENT_FRAMES
        self._deliver(self._frames.send_all([segment[at] for at in sorted(chosen)]), learn=learn)
        for at, (index, _) in enumerate(segment):
            if at not in chosen:
                self._last.reuse(index)
        if learn:
            self._session.upload(len(differences) * _FLOAT_BYTES)
            with self._session.server("thresholds", beside=True):
                self._server.learn_segment(segment[0][0], differences)
            self._server.send_table()

    def _deliver(self, decoded: list[tuple[int, av.VideoFrame]], *, learn: bool = False) -> None:
        self._last.deliver(decoded)
        if learn:
            for index, _ in decoded:
                self._server.keep(index, self._last.value(index))
