"""What a stream is expected to cost the camera: streams that don't fit its budget are not measured.

The logarithm of a stream's CPU over a plain x264's is believed as gains are (`belief.py`): a sum of what its
levers do, moved by what was rehearsed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.belief import Belief, believe
from accmpeg.evaluation.profile.gains import Seen

__all__ = ["CameraCosts"]

_LEVERS = {
    # What the timing of a whole round does to all streams alike.
    "round": (0.0, 0.10),
    "smaller": (0.0, 0.20),
    "b_frames": (-0.09, 0.06),
    "mbtree": (0.15, 0.15),
    "feedback": (0.03, 0.10),
    "accmodel": (0.20, 0.15),
    "superfast": (-0.35, 0.12),
    "faster": (0.45, 0.15),
    "medium": (0.88, 0.18),
    "aq": (0.0, 0.10),
}
"""Mean and spread over twelve clips at ten results a second (`docs`: Profile). A B-frame each."""
_SCALING, _PER_AREA = 0.08, 1.4
"""A smaller stream's CPU: of scaling the source, and for its share of the source's area. Small pictures have
more in each macroblock."""
_OWN_SD, _NOISE_SD = 0.08, 0.06
_LIKELY = 0.15
"""A stream that fits the budget with less than this probability is not measured."""


@dataclass(frozen=True)
class CameraCosts:
    """Beliefs about log CPU ratios of all settings that may be tried."""

    belief: Belief

    @classmethod
    def prior(cls, settings: Sequence[StreamSetting], source_px: tuple[int, int]) -> "CameraCosts":
        """What is believed before anything is rehearsed."""
        names = list(_LEVERS)
        moved = np.array([[_moved(each).get(name, 0.0) for name in names] for each in settings])
        means = np.asarray([mean for mean, _ in _LEVERS.values()])
        variances = np.asarray([sd**2 for _, sd in _LEVERS.values()])
        sizes = np.asarray([_log_size_ratio(each, source_px) for each in settings])
        covariance = (moved * variances) @ moved.T + _OWN_SD**2 * np.eye(len(settings))
        return cls(Belief(tuple(settings), sizes + moved @ means, covariance))

    def after(self, seen: Sequence[Seen]) -> "CameraCosts":
        """Moved by what was rehearsed; `self` is the prior."""
        logs = {each.setting: math.log(each.camera_ratio) for each in seen if each.camera_ratio > 0}
        return CameraCosts(believe(self.belief, logs, _NOISE_SD**2 * np.eye(len(logs))))

    def ratio(self, setting: StreamSetting) -> float:
        """CPU over a plain x264's, as believed."""
        return math.exp(self.belief.of(setting)[0])

    def may_fit(self, setting: StreamSetting, budget: float) -> bool:
        """Whether it is worth measuring for a camera with this budget."""
        mean, sd = self.belief.of(setting)
        above = (mean - math.log(budget)) / max(sd, 1e-9)
        return 0.5 * math.erfc(above / math.sqrt(2)) >= _LIKELY


def _moved(setting: StreamSetting) -> dict[str, float]:
    found = {"round": 1.0, "b_frames": float(setting.b_frames), setting.map: 1.0, setting.preset: 1.0}
    found["smaller"] = float(setting.size_px is not None)
    found["mbtree"] = float(setting.mbtree_frames > 0)
    found["aq"] = float(setting.aq_mode != 1)
    return found


def _log_size_ratio(setting: StreamSetting, source_px: tuple[int, int]) -> float:
    if setting.size_px is None:
        return 0.0
    share = setting.size_px[0] * setting.size_px[1] / (source_px[0] * source_px[1])
    return math.log(_SCALING + _PER_AREA * share)
