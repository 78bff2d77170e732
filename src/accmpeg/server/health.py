"""How a camera is doing, told from what became of its frames lately.

| state      | when                                                                     |
|------------|--------------------------------------------------------------------------|
| live       | frames come, and get results                                             |
| overloaded | a tenth of the frames or more give way, or nothing is answered in time   |
| failing    | a tenth of the frames or more can't be decoded, or fail in the DNN       |
| silent     | it is connected, and no frame comes                                      |
| away       | it is not connected                                                      |
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["STATES", "AnswerWindow", "Health", "State", "judge"]

State = Literal["live", "overloaded", "failing", "silent", "away"]
STATES: tuple[State, ...] = ("live", "overloaded", "failing", "silent", "away")

WINDOW_S = 10.0
BAD_SHARE = 0.1
SILENT_S = 5.0
_NO_RESULT = {
    "failed": ("dnn_failed", "failed in the server DNN"),
    "undecodable": ("undecodable", "could not be decoded"),
    "behind": ("behind", "gave way because the server DNN is behind"),
}


@dataclass(frozen=True, slots=True)
class Health:
    """A state, a short name of its reason for alerts, and the reason for people."""

    state: State
    code: str = ""
    reason: str = ""


class AnswerWindow:
    """What became of the frames answered in the last ten seconds, in steps of one."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, Counter[str]]] = deque()
        self.last_s = float("-inf")
        """When the last frame was answered."""

    def add(self, now_s: float, kind: str) -> None:
        """A frame was answered: `kind` is "result" or why it has none."""
        self.last_s = now_s
        if not self._steps or self._steps[-1][0] != int(now_s):
            self._steps.append((int(now_s), Counter()))
        self._steps[-1][1][kind] += 1
        self._forget(now_s)

    def counts(self, now_s: float) -> Counter[str]:
        """Frames by kind."""
        self._forget(now_s)
        return sum((step for _, step in self._steps), Counter())

    def _forget(self, now_s: float) -> None:
        while self._steps and self._steps[0][0] <= now_s - WINDOW_S:
            self._steps.popleft()


def judge(
    counts: Counter[str],
    *,
    frame_age_s: float,
    answer_age_s: float,
    waiting: int,
    error: str = "",
    dnn_problem: str = "",
) -> Health:
    """The health of a connected camera.

    `counts` are the answers of the last ten seconds, the ages those of its last frame and last answer, or of
    the connection where there was none; `waiting` frames have come and are not answered.
    """
    total = sum(counts.values())
    if dnn_problem and (waiting or frame_age_s <= SILENT_S):
        return Health("failing", "dnn_failed", f"the server DNN: {dnn_problem}")
    for state, kinds in (("failing", ("failed", "undecodable")), ("overloaded", ("behind",))):
        bad = sum(counts[kind] for kind in kinds)
        if total and bad / total >= BAD_SHARE:
            code, what = _NO_RESULT[max(kinds, key=lambda kind: counts[kind])]
            why = f": {error}" if error and code == "undecodable" else ""
            reason = f"{bad} of {total} frames in {WINDOW_S:.0f} s {what}{why}"
            return Health(state, code, reason)  # type: ignore[arg-type]
    if waiting and answer_age_s > SILENT_S:
        return Health(
            "overloaded", "no_answer", f"{waiting} frames wait, none was answered for {answer_age_s:.0f} s"
        )
    if frame_age_s > SILENT_S:
        return Health("silent", "no_frames", f"no frame has come for {frame_age_s:.0f} s")
    return Health("live")
