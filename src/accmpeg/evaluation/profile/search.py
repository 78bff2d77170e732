"""The search for a site's stream: rounds of measuring, each where the belief so far hopes for most.

```
plain x264 ─▶ opening settings on two parts ─▶ belief ─▶ the most hopeful next ─▶ … ─▶ the best map, tuned
                    choice ─▶ judged on the other half of the footage ◀─ finalists on all parts ◀─┘
```
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain as joined
from pathlib import Path

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.bench.rows import CellRow, ReferenceName
from accmpeg.evaluation.methods.whole_stream import MAP_EVERY, StreamSetting
from accmpeg.evaluation.profile.belief import Belief, believe, drift, prior_of
from accmpeg.evaluation.profile.choice import Step, choose, complexity
from accmpeg.evaluation.profile.costs import CameraCosts
from accmpeg.evaluation.profile.gains import Gains, KneeCurve, Seen, measure_gains, site_curve
from accmpeg.evaluation.profile.measuring import EARLY_PARTS, EARLY_POINTS, FINALISTS, LATE_POINTS, Measuring
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.profile.reading import Reading
from accmpeg.evaluation.settings import ProfileSettings
from accmpeg.media.codecs import LIVE_GOP_FRAMES
from accmpeg.steering.feedback import MARGIN_MACROBLOCKS

__all__ = ["Outcome", "candidates", "search", "tunings"]

_PER_ROUND = 4
_LEAST_OPENING = 2
"""However little time there is, so many streams are held against an untouched x264."""
_BASE_DELAY_MS = 60.0
"""What a stream without B-frames takes from capture to result on a good link: a bound to sort out by."""
_HOPE = 0.7
"""Standard deviations by which an unmeasured setting may be better than believed, when the next is picked."""


@dataclass(frozen=True)
class Outcome:
    """What the search found. `chain` ends with the choice."""

    settings: ProfileSettings
    dnn: DnnSpec
    reference: ReferenceName
    parts: Parts
    chain: tuple[Step, ...]
    belief: Belief
    chosen_by: Gains
    """On the parts to choose by, at the kept share."""
    judged: tuple[Gains, ...]
    """On the other half, at the kept share, 90 % and 95 % of the ceiling."""
    curve: KneeCurve | None
    default: StreamSetting
    """What would be sent without a choice: the DNN's size, and as many B-frames as the delay has room for."""
    left_out_minutes: float = 0.0
    """About how much longer the search would have taken without a limit."""
    readings: tuple[Reading, ...] = ()
    """Of the server DNN's own sizes to read, the card's first; where they were asked for."""

    @property
    def choice(self) -> StreamSetting:
        return self.chain[-1].setting

    @property
    def verdict(self) -> Seen | None:
        """The choice on the half of the footage that it was not chosen on."""
        return self.judged[0].of(self.choice)


def candidates(parts: Parts, dnn: DnnSpec, settings: ProfileSettings) -> list[StreamSetting]:
    """All settings that make sense for a site: those that fit its delay, with the maps it can have.

    All with as few keyframes as a live stream has: a DNN answers as well (`docs`: Notebook).
    """
    width_px, height_px = parts.size_px
    small = dnn.card.input.stream_size_px(width_px, height_px)
    sizes: list[tuple[int, int] | None] = [None]
    for scale in (1.0, 1.25, 0.75):
        size = _even(small[0] * scale), _even(small[1] * scale)
        if size[0] <= width_px / 1.1 and min(size) >= 64:
            sizes.append(size)
    maps = ["none"]
    if dnn.card.task != "segmentation":
        maps.append("feedback")
    if dnn.accmodel is not None:
        maps.append("accmodel")
    found = [
        StreamSetting(size, b_frames, mbtree, kind, preset, aq, LIVE_GOP_FRAMES)  # type: ignore[arg-type]
        for size in sizes
        for b_frames, mbtree in ((0, 0), (1, 0), (2, 0), (2, 10))
        for kind in maps
        for preset in ("superfast", "veryfast", "faster", "medium")
        # Without AQ x264 would ignore a map.
        for aq in ((1, 0) if kind == "none" else (1,))
    ]
    return [each for each in found if _delay_bound_ms(each, parts) <= settings.delay_budget_ms]


def tunings(setting: StreamSetting) -> list[StreamSetting]:
    """The same stream with its map stronger or weaker, wider or narrower, or renewed more or less often."""
    if setting.map == "none":
        return []
    found = [replace(setting, map_strength=strength) for strength in (0.5, 1.5)]
    if setting.map == "feedback":
        return [*found, *(replace(setting, map_margin=MARGIN_MACROBLOCKS + more) for more in (-1, 1))]
    return [*found, *(replace(setting, map_every=every) for every in (MAP_EVERY // 2, 2 * MAP_EVERY))]


def search(
    parts: Parts,
    dnn: DnnSpec,
    folder: Path,
    settings: ProfileSettings,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measures in `folder` (found there again, a search goes on) and chooses.

    Raises EvaluationError where nothing can be said of the footage, or nothing meets the budgets, and what
    `run_sweep` raises.
    """
    known = candidates(parts, dnn, settings)
    if not known:
        raise EvaluationError(
            f"no stream has a delay of {settings.delay_budget_ms:g} ms: without B-frames it takes some "
            f"{_BASE_DELAY_MS:g} ms, so give --delay-budget-ms as much"
        )
    small = dnn.card.input.stream_size_px(*parts.size_px)
    tuned = [*joined.from_iterable(tunings(each) for each in known)]
    plain = StreamSetting()
    prior = prior_of([plain, *known, *tuned], parts.size_px, small, settings.keep)
    measured = Measuring(parts, dnn, folder, settings, progress, clock)
    b_frames = max((each.b_frames for each in known), default=0)
    size_px = None if small == parts.size_px else small
    default = StreamSetting(size_px, b_frames=b_frames, gop_frames=LIVE_GOP_FRAMES)
    opening = [each for each in _opening(default) if each in known]
    costs = CameraCosts.prior([plain, *known, *tuned], parts.size_px)
    gains, belief = _explored(measured, known, opening, prior, costs)
    finalists, number = _finalists(measured, belief, gains)
    seen = gains
    if number:
        rows = measured.sweep(parts.choice[:number], [plain, *finalists], LATE_POINTS, "finalists")
        final = measure_gains(rows, measured.reference, settings.keep)
        seen = final if len(final.seen) > 1 else gains
    belief = _believed(prior, seen, parts)
    # Whatever is believed: what sent more bytes than plain x264 here is not chosen.
    allowed = [each.setting for each in seen.seen if _fits(each, settings) and each.gain <= 0]
    if not allowed:
        raise EvaluationError(_nearest(seen.seen, settings))
    chain = choose(belief, allowed)
    if chain[0].setting not in allowed:
        chain = chain[1:] or [Step(min(allowed, key=lambda each: belief.of(each)[0]), 1.0)]
    # Of the first steps too: there is where a choice ends that loses on this half.
    judges = list(dict.fromkeys([plain, default, *(step.setting for step in [*chain[:2], *chain[-2:]])]))
    judging = parts.judging
    number = measured.settle(
        "judging", [(n, measured.work(judging[:n], judges, LATE_POINTS)) for n in _downwards(judging)]
    )
    rows = measured.sweep(judging[:number], judges, LATE_POINTS, "judging")
    judged = tuple(measure_gains(rows, measured.reference, keep) for keep in (settings.keep, 0.90, 0.95))
    chain = _confirmed(chain, judged[0])
    every = measured.rows(parts.choice + judging, LATE_POINTS)
    curve = site_curve(every, measured.reference)
    return Outcome(
        settings,
        dnn,
        measured.reference,
        parts,
        tuple(chain),
        belief,
        seen,
        judged,
        curve,
        default,
        measured.pace.left_out_s / 60,
    )


def _explored(
    measured: Measuring,
    known: Sequence[StreamSetting],
    opening: Sequence[StreamSetting],
    prior: Belief,
    costs: CameraCosts,
) -> tuple[Gains, Belief]:
    """Rounds on the early parts, as many and as large as the time allows: all that was measured on them."""
    settings, early = measured.settings, measured.parts.choice[:EARLY_PARTS]
    plain = StreamSetting()

    def count_of(what: str, wanted: Sequence[StreamSetting], rounds: float) -> int:
        """How many of the wanted fit, when so many rounds share the time that finalists leave."""
        work = [(n, measured.work(early, wanted[:n], EARLY_POINTS)) for n in range(len(wanted), -1, -1)]
        return measured.settle(what, work, share=1 / rounds, reserve=measured.end)

    # One stream by itself tells what the others will take, and whether there is anything to compare with.
    rows = measured.sweep(early, [plain], EARLY_POINTS, "untouched x264")
    gains, belief = _gains(measured, rows), prior
    wanted = [each for each in opening if costs.may_fit(each, settings.most_camera_ratio)]
    # Where nothing fits, what comes nearest.
    wanted = wanted or [min(known, key=costs.ratio)]
    tried = wanted[: max(_LEAST_OPENING, count_of("opening", wanted, 1.5))]
    for name, rounds in (("opening", 0), ("round 1", 3), ("round 2", 2), ("map", 1)):
        if name == "map":
            best = choose(belief, _fitting(belief, gains, settings))[-1].setting
            tried = tunings(best)
        elif rounds:
            rehearsed = costs.after(gains.seen)
            free = [each for each in known if rehearsed.may_fit(each, settings.most_camera_ratio)]
            tried = _hopeful(belief, gains, free)
        if rounds:
            tried = tried[: count_of(name, tried, rounds)]
        if not tried and name != "opening":
            continue
        rows = measured.sweep(early, [plain, *tried], EARLY_POINTS, name)
        gains = _gains(measured, rows)
        belief = _believed(prior, gains, measured.parts)
    return gains, belief


def _gains(measured: Measuring, rows: Sequence[CellRow]) -> Gains:
    found = measure_gains(rows, measured.reference, measured.settings.keep)
    if found.why:
        raise EvaluationError(f"nothing can be chosen by this footage: {found.why}")
    return found


def _believed(prior: Belief, gains: Gains, parts: Parts) -> Belief:
    gained = {each.setting: each.gain for each in gains.seen}
    return believe(prior, gained, gains.noise + drift(list(gained), gains.parts // parts.phases))


def _opening(default: StreamSetting) -> list[StreamSetting]:
    """What says most about the levers at once, beside an untouched x264; what says most comes first."""
    found = [
        default,
        replace(default, b_frames=0),
        replace(default, map="feedback"),
        replace(default, size_px=None),
        replace(default, size_px=None, b_frames=0),
        replace(default, preset="medium"),
        replace(default, map="accmodel"),
    ]
    return [each for each in dict.fromkeys(found) if each != StreamSetting()]


def _hopeful(belief: Belief, gains: Gains, free: Sequence[StreamSetting]) -> list[StreamSetting]:
    """The unmeasured settings that may be the best; and of those the simpler where two may be as good."""
    done = {each.setting for each in gains.seen}

    def promise(setting: StreamSetting) -> float:
        mean, sd = belief.of(setting)
        return mean - _HOPE * sd + 0.01 * complexity(setting)

    return sorted((each for each in free if each not in done), key=promise)[:_PER_ROUND]


def _fitting(belief: Belief, gains: Gains, settings: ProfileSettings) -> list[StreamSetting]:
    """What was measured to keep the share within the budgets. Raises EvaluationError where nothing was."""
    known = set(belief.settings)
    fitting = [each.setting for each in gains.seen if _fits(each, settings) and each.setting in known]
    if not fitting:
        raise EvaluationError(_nearest(gains.seen, settings))
    return fitting


def _finalists(measured: Measuring, belief: Belief, gains: Gains) -> tuple[list[StreamSetting], int]:
    """The measured settings that are believed best and what the choice would replace; on how many parts.

    Where time is short, on fewer parts, then fewer of them; none at all where there is hardly time to judge.
    """
    fitting = _fitting(belief, gains, measured.settings)
    best = sorted(fitting, key=lambda each: belief.of(each)[0])
    chain = [step.setting for step in choose(belief, fitting)]
    choices: list[tuple[list[StreamSetting], int]] = []
    for count, numbers in ((FINALISTS, _downwards(measured.parts.choice)), (1, [EARLY_PARTS])):
        streams = list(dict.fromkeys([*best[:count], *chain[-count:]]))
        choices += [(streams, number) for number in numbers if number >= min(EARLY_PARTS, numbers[0])]
    choices.append(([], 0))
    work = [
        (index, measured.work(measured.parts.choice[:number], [StreamSetting(), *streams], LATE_POINTS))
        for index, (streams, number) in enumerate(choices)
    ]
    judging = len(measured.parts.judging)
    then = [measured.judging_work(min(max(1, number), judging)) for _, number in choices]
    return choices[measured.settle("finalists", work, then=then)]


def _downwards(parts: Sequence[ClipSpec]) -> list[int]:
    return list(range(len(parts), 0, -1))


def _fits(seen: Seen, settings: ProfileSettings) -> bool:
    return (
        seen.reached
        and seen.camera_ratio <= settings.most_camera_ratio
        and not (seen.delay_ms > settings.delay_budget_ms)
    )


def _nearest(seen: Sequence[Seen], settings: ProfileSettings) -> str:
    cheap = min(seen, key=lambda each: each.camera_ratio)
    quick = min(seen, key=lambda each: (math.isnan(each.delay_ms), each.delay_ms))
    budgets = f"a camera budget of {settings.camera_budget:g} and {settings.delay_budget_ms:g} ms"
    fitting = [each for each in seen if _fits(each, settings)]
    if fitting:
        best = min(fitting, key=lambda each: each.gain)
        return (
            f"every stream that keeps {settings.keep:.0%} of the ceiling within {budgets} sends more than an "
            f"untouched x264, {best.setting.name} {math.expm1(best.gain):.0%} more: allow more CPU or delay"
        )
    return (
        f"no stream keeps {settings.keep:.0%} of the ceiling within {budgets}. The cheapest, "
        f"{cheap.setting.name}, takes {cheap.camera_ratio:.2f} times a plain x264's CPU; the quickest, "
        f"{quick.setting.name}, {quick.delay_ms:.0f} ms"
    )


def _confirmed(chain: list[Step], judged: Gains) -> list[Step]:
    """The chain without those at its end that lose on the other half against any that they replaced, or don't
    keep the share there.

    Against another stream as surely as that half can tell; against an untouched x264 at all, because nobody
    should send more than that on any footage. What is left then, and was not judged, has lost its footing
    too: it goes, down to an untouched x264.
    """

    def bound(replaced: Seen, last: Seen) -> float:
        return 0.0 if replaced.setting == StreamSetting() else replaced.gain + max(last.sd, 0.03)

    while len(chain) > 1:
        last = judged.of(chain[-1].setting)
        replaced = [seen for step in chain[:-1] if (seen := judged.of(step.setting)) is not None]
        if last is not None and last.reached and all(last.gain <= bound(seen, last) for seen in replaced):
            break
        chain = chain[:-1]
    return chain


def _delay_bound_ms(setting: StreamSetting, parts: Parts) -> float:
    # In the encoder and in the decoder's reordering together.
    frames = setting.mbtree_frames + (setting.b_frames + 1 if setting.b_frames else 0)
    return _BASE_DELAY_MS + 1000 * frames / float(parts.frame_rate)


def _even(side_px: float) -> int:
    return max(2, 2 * round(side_px / 2))
