"""The textbook's rate control, to compare with."""

from accmpeg.camera.uplink.ratecontrol import RateController

__all__ = ["AimdRate"]


class AimdRate(RateController):
    """Adds `step_bps` a round trip, halves where the queue takes half the budget (Chiu and Jain, 1989)."""

    step_bps = 25_000

    _last_change_ms = 0.0

    def _react(self, now_ms: float) -> None:
        if now_ms - self._last_change_ms < self.link.rtt_ms + 100:
            return
        if self.delay_ms > self.budget_ms / 2 or self.silent_ms(now_ms) > 1000:
            self._target_bps = max(self._target_bps / 2, self.lowest_bps)
        else:
            self._target_bps = min(self._target_bps + self.step_bps, self.ceiling_bps)
        self._last_change_ms = now_ms
