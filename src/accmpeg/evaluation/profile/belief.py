"""What is believed of every stream setting: what earlier clips taught, moved by what this footage shows.

A setting's gain g is the logarithm of its bytes over those of an untouched x264 for the same answers. It is
the sum of what its levers do, and of something of its own:

    g = Σ θ of its levers + ε        θ ~ N(mean, sd²) over sites, ε ~ N(0, OWN_SD²)

Measured gains y = g + noise move the belief by the rule of Gauss: with the prior's mean m and covariance P,
the noise's covariance R and H picking the measured settings out of all,

    m' = m + P Hᵀ (H P Hᵀ + R)⁻¹ (y − H m)        P' = P − P Hᵀ (H P Hᵀ + R)⁻¹ H P

So a few seconds of footage, which measure a gain to some ten per cent, don't throw away what is known, and
one lever that is measured under one setting is known a little better under all. The means and spreads of
θ come from the sweeps in `results/` (`docs`: Profile), spreads without what is noise of measuring.

What is chosen is for the footage to come, and a gain there is not what it was: R is the noise of measuring
and DRIFT_SD² over the stretches of footage that were measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.methods.whole_stream import MAP_EVERY, StreamSetting
from accmpeg.steering.feedback import MARGIN_MACROBLOCKS

__all__ = ["Belief", "Lever", "believe", "drift", "levers_of", "prior_of"]

Floats = NDArray[np.float64]

OWN_SD = 0.05
DRIFT_SD = 0.15
"""Of a gain from one stretch of a few seconds to another, beyond the noise of measuring
(`benchmarks/choice_rule.py`)."""


@dataclass(frozen=True)
class Lever:
    """What one change of a stream does to log bytes at equal answers: at 90 % and at 95 % of the ceiling."""

    mean: tuple[float, float]
    sd: float

    def at(self, keep: float) -> float:
        """The mean at a share of the ceiling, on the straight line through both, up to 0.85 and 0.97."""
        low, high = self.mean
        return low + (high - low) * (min(0.97, max(0.85, keep)) - 0.90) / 0.05


LEVERS: Mapping[str, Lever] = {
    # The DNN's size saves least where most is kept: a small picture runs out of pixels.
    "size": Lever((-0.28, 0.02), 0.30),
    "below the DNN's size": Lever((0.10, 0.25), 0.20),
    "b_frames": Lever((-0.23, -0.22), 0.10),
    "mbtree": Lever((-0.04, -0.04), 0.10),
    "feedback": Lever((-0.05, -0.06), 0.13),
    "accmodel": Lever((-0.04, -0.05), 0.13),
    # More where the picture is small: a fifth at 416 pixels, a twentieth at 640.
    "slower preset": Lever((-0.12, -0.12), 0.12),
    "quicker preset": Lever((0.10, 0.10), 0.10),
    "aq": Lever((-0.02, -0.03), 0.08),
    # By the bytes that keyframes have in those sweeps.
    "rare keyframes": Lever((-0.08, -0.07), 0.05),
    # For each doubling, each macroblock, each doubling. In the mean no tuning pays, on single clips some do.
    "map strength": Lever((0.03, 0.03), 0.08),
    "map margin": Lever((0.0, 0.0), 0.05),
    "map interval": Lever((0.0, 0.0), 0.04),
}
"""From 14 clips with yolo11n and 10 with yolox_nano (results/); the last three from the notebook's trial."""


@dataclass(frozen=True)
class Belief:
    """Of `settings`, in their order: the mean of each gain, and the covariance of all."""

    settings: tuple[StreamSetting, ...]
    mean: Floats
    covariance: Floats

    def of(self, setting: StreamSetting) -> tuple[float, float]:
        """Mean and standard deviation of a setting's gain."""
        index = self.settings.index(setting)
        return float(self.mean[index]), math.sqrt(max(0.0, float(self.covariance[index, index])))

    def surely_less(self, one: StreamSetting, other: StreamSetting, by: float = 0.0) -> float:
        """The probability that `one` needs fewer bytes than `other`, by the log ratio `by` at least."""
        a, b = self.settings.index(one), self.settings.index(other)
        mean = float(self.mean[a] - self.mean[b]) + by
        covariance = self.covariance
        variance = float(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b])
        if variance <= 1e-12:
            return 1.0 if mean < 0 else 0.0
        return 0.5 * math.erfc(mean / math.sqrt(2 * variance))


def levers_of(
    setting: StreamSetting, source_px: tuple[int, int], dnn_px: tuple[int, int]
) -> dict[str, float]:
    """The levers that a setting moves, and how far; `dnn_px` is the stream's size for the server DNN.

    Sizes between the source's and the DNN's move the lever by their share of the way, in log area.

    >>> levers_of(StreamSetting((640, 360), b_frames=2), (1280, 720), (640, 360))
    {'size': 1.0, 'b_frames': 1.0}
    """
    found: dict[str, float] = {}
    if setting.size_px is not None and setting.size_px != source_px:
        way = math.log(_area(source_px) / _area(setting.size_px))
        whole = math.log(_area(source_px) / _area(dnn_px))
        # A stream for a DNN that reads the source's size has no way to go: every step is below it.
        if whole > 0:
            found["size"] = min(1.0, way / whole)
        if way > whole + 1e-6:
            found["below the DNN's size"] = (way - whole) / math.log(2)
    if setting.b_frames:
        found["b_frames"] = 0.8 if setting.b_frames == 1 else 1.0
    if setting.mbtree_frames:
        found["mbtree"] = 1.0
    if setting.map != "none":
        found[setting.map] = 1.0
    if setting.preset == "superfast":
        found["quicker preset"] = 1.0
    elif setting.preset != "veryfast":
        found["slower preset"] = 0.6 if setting.preset == "faster" else 1.0
    if setting.aq_mode != 1:
        found["aq"] = 1.0
    if setting.gop_frames != StreamSetting.gop_frames:
        found["rare keyframes"] = 1.0
    found |= {name: far for name, far in _tuning(setting).items() if far}
    return found


def prior_of(
    settings: Sequence[StreamSetting], source_px: tuple[int, int], dnn_px: tuple[int, int], keep: float
) -> Belief:
    """What is believed before anything is measured. An untouched x264's gain is zero, and known."""
    names = list(LEVERS)
    moved = np.zeros((len(settings), len(names)))
    for row, setting in enumerate(settings):
        for name, share in levers_of(setting, source_px, dnn_px).items():
            moved[row, names.index(name)] = share
    means = np.asarray([LEVERS[name].at(keep) for name in names])
    variances = np.asarray([LEVERS[name].sd ** 2 for name in names])
    own = np.where([_other_pictures(each) for each in settings], OWN_SD**2, 0.0)
    return Belief(tuple(settings), moved @ means, (moved * variances) @ moved.T + np.diag(own))


def believe(prior: Belief, measured: Mapping[StreamSetting, float], noise: Floats) -> Belief:
    """The prior moved by measured gains; `noise` is their covariance, in the order of `measured`.

    >>> prior = prior_of([StreamSetting(), StreamSetting(b_frames=2)], (640, 360), (640, 360), 0.9)
    >>> after = believe(prior, {StreamSetting(b_frames=2): -0.4}, np.array([[0.01]]))
    >>> round(float(after.mean[1]), 2), round(after.of(StreamSetting(b_frames=2))[1], 2)
    (-0.32, 0.07)
    """
    if not measured:
        return prior
    index = [prior.settings.index(setting) for setting in measured]
    gains = np.asarray(list(measured.values()))
    shared = prior.covariance[:, index]
    weight = shared @ np.linalg.inv(prior.covariance[np.ix_(index, index)] + noise)
    mean = prior.mean + weight @ (gains - prior.mean[index])
    covariance = prior.covariance - weight @ shared.T
    return Belief(prior.settings, mean, (covariance + covariance.T) / 2)


def drift(settings: Sequence[StreamSetting], stretches: int) -> Floats:
    """The covariance of what gains on so many stretches of footage differ from those to come.

    >>> drift([StreamSetting(), StreamSetting(b_frames=2)], 1).round(4).tolist()
    [[0.0, 0.0], [0.0, 0.0225]]
    """
    moves = [_other_pictures(setting) for setting in settings]
    return np.diag(np.where(moves, DRIFT_SD**2 / max(1, stretches), 0.0))


def _tuning(setting: StreamSetting) -> dict[str, float]:
    """How far a map is from its defaults: in doublings, and in macroblocks."""
    return {
        "map strength": math.log2(setting.map_strength),
        "map margin": setting.map_margin - MARGIN_MACROBLOCKS,
        "map interval": math.log2((setting.map_every or MAP_EVERY) / MAP_EVERY),
    }


def _other_pictures(setting: StreamSetting) -> bool:
    """Whether a DNN sees others than an untouched x264's. The parts that are measured begin with a keyframe
    and have no other, so with rarer ones alone they are the same."""
    return replace(setting, gop_frames=StreamSetting.gop_frames) != StreamSetting()


def _area(size_px: tuple[int, int]) -> float:
    return float(size_px[0] * size_px[1])
