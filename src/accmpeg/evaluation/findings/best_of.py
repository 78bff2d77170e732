"""The best of several settings, never chosen on what it is judged by.

Whoever picks the best of four equal settings on the data that they are compared on "gains" by luck alone. Two
ways around that:

- `halves`: chosen on each clip's first half of blocks, judged on its second: what a user gains who tries the
  settings on a site first;
- `others`: chosen on all other clips, judged on the whole clip: what one fixed choice gains on a new site.

Draws choose anew, each on its own blocks, so that an interval holds the choice's chance too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.findings.comparing import WHOLE, Side
from accmpeg.evaluation.findings.measured import Track
from accmpeg.evaluation.findings.resampling import BlockWeights

__all__ = ["BEST_STOCK", "chosen_on_halves", "chosen_on_others", "groups_of"]

Floats = NDArray[np.float64]

BEST_STOCK = "best-stock"
_STOCK = ("aq-0@dnn", "aq-1", "aq-1@dnn", "b2@dnn", "constant-qp")
_NEVER = 1e6
"""Added to a log for each clip that a member fails on, so that fewer failures come first."""


def groups_of(methods: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups with two measured members or more, by name: stock settings, and variants of one system.

    >>> groups_of(["aq-1", "glimpse:change=0.05", "glimpse:change=0.1"])
    {'best-glimpse': ('glimpse:change=0.05', 'glimpse:change=0.1')}
    """
    families: dict[str, list[str]] = {BEST_STOCK: [name for name in _STOCK if name in methods]}
    for prefix in dict.fromkeys(name.split(":")[0] for name in methods if ":" in name):
        families[f"best-{prefix}"] = [name for name in methods if name.split(":")[0] == prefix]
    return {name: tuple(members) for name, members in families.items() if len(members) > 1}


def chosen_on_halves(tracks: Mapping[str, Track], weights: BlockWeights) -> Side:
    """The best member of a group on one clip: `tracks` by member."""
    usable = {name: track for name, track in tracks.items() if len(track.logs)}
    targets = next(iter(tracks.values())).targets
    if not usable:
        return Side(np.empty((0, len(targets))), ("no member has a curve",) * len(targets))
    names = list(usable)
    costs = np.stack(
        [
            np.where(weights.first.of(track.side) > 0, np.inf, weights.first.of(track.logs))
            for track in usable.values()
        ]
    )
    costs = np.where(np.isnan(costs), np.inf, costs)
    best = costs.argmin(axis=0)[None]
    logs = np.stack([weights.second.of(track.logs) for track in usable.values()])
    sides = np.stack([weights.second.of(track.side) for track in usable.values()])
    judged = np.take_along_axis(sides, best, 0)[0, WHOLE]
    why = tuple(
        f"no member reaches {target:.0%} on the first half"
        if not np.isfinite(costs[:, WHOLE, number]).any()
        else f"{names[best[0, WHOLE, number]]} does not cross {target:.0%} on the second half"
        if judged[number]
        else ""
        for number, target in enumerate(targets)
    )
    chosen = tuple(names[index] for index in best[0, WHOLE])
    return Side(np.take_along_axis(logs, best, 0)[0], why, chosen)


def chosen_on_others(
    tracks: Sequence[Mapping[str, Track]], weights: Floats, blocks: Sequence[BlockWeights]
) -> list[Side]:
    """The best member of a group on each clip: `tracks` by clip and member, `weights` of the clips.

    The member that reaches the target on most of the other clips, and among those the one with the smallest
    weighted mean of logs over them. A draw chooses by the same draw of the other clips' blocks.
    """
    members = list(tracks[0])
    targets = tracks[0][members[0]].targets
    rows = 3 + blocks[0].clip.drawn.stop - blocks[0].clip.drawn.start
    logs = np.zeros((len(members), len(tracks), rows, len(targets)))
    fails = np.ones(logs.shape)
    for clip, (mine, drawn) in enumerate(zip(tracks, blocks, strict=True)):
        for index, name in enumerate(members):
            if len(mine[name].logs):
                own = drawn.clip.of(mine[name].logs)
                logs[index, clip] = np.where(np.isfinite(own), own, np.nan_to_num(own[WHOLE]))
                fails[index, clip] = drawn.clip.of(mine[name].side) > 0
    share = weights[None, :, None, None]
    costs = share * logs
    others = (costs.sum(axis=1, keepdims=True) - costs) / np.maximum(weights.sum() - share, 1e-12)
    failures = fails.sum(axis=1, keepdims=True) - fails
    best = (others + _NEVER * failures).argmin(axis=0)
    judged = np.take_along_axis(logs, best[None], 0)[0]
    sides = []
    for clip, mine in enumerate(tracks):
        chosen = tuple(members[index] for index in best[clip, WHOLE])
        if len(tracks) == 1:
            why = ("there are no other clips to choose on",) * len(targets)
        else:
            why = tuple(mine[name].why[number] for number, name in enumerate(chosen))
        sides.append(Side(judged[clip], why, chosen))
    return sides
