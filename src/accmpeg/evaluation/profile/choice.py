"""Which setting is chosen: the simplest that nothing surely beats.

```
untouched x264 ─▶ is a setting with one lever surely less? ─▶ with two? ─▶ … ─▶ the chain, its end is chosen
```
"""

from collections.abc import Sequence
from dataclasses import dataclass

from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.belief import Belief

__all__ = ["CERTAINTY", "WORTH", "Step", "choose", "complexity"]

CERTAINTY = 0.7
"""A more complicated setting takes over where it needs fewer bytes with this probability. With 0.8
levers that pay are left out, with 0.5 more are taken for hardly less bytes (`benchmarks/choice_rule.py`)."""
WORTH = 0.02
"""And fewer by this share: less is not worth another lever."""


@dataclass(frozen=True)
class Step:
    """A setting that took over from a simpler one."""

    setting: StreamSetting
    probability: float
    """That it needs fewer bytes than the setting before it; 1 for the first."""


def complexity(setting: StreamSetting) -> int:
    """How many levers differ from an untouched x264.

    >>> complexity(StreamSetting((640, 360), b_frames=2))
    2
    """
    plain = StreamSetting()
    return sum(getattr(setting, name) != getattr(plain, name) for name in plain.__dataclass_fields__)


def choose(belief: Belief, allowed: Sequence[StreamSetting], *, certainty: float = CERTAINTY) -> list[Step]:
    """The chain from an untouched x264 to the chosen setting, which is the last.

    Each setting of `allowed` that needs fewer bytes than the present one, by WORTH and with `certainty`,
    takes over, simple ones first and among equally simple ones the best first. So a lever that may just as
    well hurt is left alone.
    """
    chain = [Step(StreamSetting(), 1.0)]
    for setting in sorted(allowed, key=lambda each: (complexity(each), belief.of(each)[0])):
        if setting == StreamSetting():
            continue
        sure = belief.surely_less(setting, chain[-1].setting, by=WORTH)
        if sure >= certainty:
            chain.append(Step(setting, sure))
    return chain
