"""The search for a site's stream: rounds of measuring, each where the belief so far hopes for most.

```
prior ─▶ opening settings on two parts ─▶ belief ─▶ the most hopeful next ─▶ … ─▶ the best map, tuned
                    choice ─▶ judged on the other half of the footage ◀─ finalists on all parts ◀─┘
```
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain as joined
from pathlib import Path

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, ReferenceName, read_rows
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods.whole_stream import MAP_EVERY, StreamSetting, whole_stream
from accmpeg.evaluation.profile.belief import Belief, believe, prior_of
from accmpeg.evaluation.profile.choice import Step, choose, complexity
from accmpeg.evaluation.profile.gains import Gains, KneeCurve, Seen, measure_gains, site_curve
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.profile.reading import Reading
from accmpeg.evaluation.settings import PROPAGATION_MS, ProfileSettings, SweepSettings
from accmpeg.steering.feedback import MARGIN_MACROBLOCKS

__all__ = ["Outcome", "candidates", "search", "tunings"]

_EARLY_PARTS, _ROUNDS, _PER_ROUND, _FINALISTS = 2, 2, 4, 3
_EARLY_POINTS, _LATE_POINTS = 4, 5
_STEP = 2
_BASE_DELAY_MS = 60.0
"""What a stream without B-frames takes from capture to result on a good link: a bound to sort out by."""
_SEARCH_SHARE = 0.55
"""Of the time, before finalists are measured on all parts and the choice is judged."""
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
    """All settings that make sense for a site: those that fit its delay, with the maps it can have."""
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
        StreamSetting(size, b_frames, mbtree, kind, preset, aq)  # type: ignore[arg-type]
        for size in sizes
        for b_frames, mbtree in ((0, 0), (1, 0), (2, 0), (2, 10))
        for kind in maps
        for preset in ("veryfast", "faster", "medium")
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
) -> Outcome:
    """Measures in `folder` (found there again, a search goes on) and chooses.

    Raises EvaluationError where nothing can be said of the footage, or nothing meets the budgets, and what
    `run_sweep` raises.
    """
    started_s = time.monotonic()
    known = candidates(parts, dnn, settings)
    plain = StreamSetting()
    small = dnn.card.input.stream_size_px(*parts.size_px)
    tuned = [*joined.from_iterable(tunings(each) for each in known)]
    prior = prior_of([*known, *tuned], parts.size_px, small, settings.keep)
    reference: ReferenceName = "own" if dnn.stronger is None else "confirmed"
    measured = _Measuring(dnn, folder, settings, progress)
    early = parts.choice[:_EARLY_PARTS]
    b_frames = max((each.b_frames for each in known), default=0)
    tried = [each for each in _opening(small, parts, b_frames) if each in known]
    gains = Gains(settings.keep, (), prior.covariance[:0, :0], 0)
    belief = prior
    for number in range(_ROUNDS + 2):
        rows = measured.sweep(early, tried, _EARLY_POINTS, f"round {number + 1}")
        gains = measure_gains(rows, reference, settings.keep)
        if gains.why:
            raise EvaluationError(f"nothing can be chosen by this footage: {gains.why}")
        belief = believe(prior, {each.setting: each.gain for each in gains.seen}, gains.noise)
        late = time.monotonic() - started_s > 60 * settings.minutes * _SEARCH_SHARE
        if late or number > _ROUNDS:
            break
        if number < _ROUNDS:
            tried = [plain, *_hopeful(belief, gains, known, settings)]
        elif tuned_best := tunings(choose(belief, _fitting(belief, gains, settings))[-1].setting):
            tried = [plain, *tuned_best]
        else:
            break
    finalists = _finalists(belief, gains, settings)
    rows = measured.sweep(parts.choice, [plain, *finalists], _LATE_POINTS, "finalists")
    final = measure_gains(rows, reference, settings.keep)
    seen = final if len(final.seen) > 1 else gains
    belief = believe(prior, {each.setting: each.gain for each in seen.seen}, seen.noise)
    # Whatever is believed: what sent more bytes than plain x264 here is not chosen.
    allowed = [each.setting for each in seen.seen if _fits(each, settings) and each.gain <= 0]
    if not allowed:
        raise EvaluationError(_nearest(gains.seen, settings))
    chain = choose(belief, allowed)
    if chain[0].setting not in allowed:
        chain = chain[1:] or [Step(min(allowed, key=lambda each: belief.of(each)[0]), 1.0)]
    default = StreamSetting(None if small == parts.size_px else small, b_frames=b_frames)
    judges = list(dict.fromkeys([plain, default, *(step.setting for step in chain[-2:])]))
    rows = measured.sweep(parts.judging, judges, _LATE_POINTS, "judging")
    judged = tuple(measure_gains(rows, reference, keep) for keep in (settings.keep, 0.90, 0.95))
    chain = _confirmed(chain, judged[0])
    every = measured.rows(parts.choice + parts.judging)
    curve = site_curve(every, reference)
    return Outcome(settings, dnn, reference, parts, tuple(chain), belief, seen, judged, curve, default)


class _Measuring:
    """Sweeps in one folder; cells that are there are not measured again."""

    def __init__(
        self,
        dnn: DnnSpec,
        folder: Path,
        settings: ProfileSettings,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._dnn, self._folder, self._progress, self._workers = dnn, folder, progress, settings.workers
        self._settings = SweepSettings(
            step=_STEP,
            server_ms=settings.server_ms,
            links={"good link": Link(bandwidth_bps=20e6, propagation_ms=PROPAGATION_MS)},
            pictures=False,
        )

    def sweep(
        self, parts: Sequence[ClipSpec], streams: Iterable[StreamSetting], points: int, what: str
    ) -> list[CellRow]:
        """Measures the streams on the parts; returns all rows of these parts."""
        run_sweep(
            parts,
            [self._dnn],
            [whole_stream(each.name) for each in dict.fromkeys(streams)],
            self._folder,
            replace(self._settings, points=points),
            workers=self._workers,
            progress=lambda kind, done, total: self._progress(f"{what}: {kind}", done, total),
        )
        return self.rows(parts)

    def rows(self, parts: Sequence[ClipSpec]) -> list[CellRow]:
        names = {part.name for part in parts}
        # The folder may hold the cells of another server DNN too.
        own = (row for row in read_rows(self._folder / CELLS_NAME) if row.dnn == self._dnn.card.name)
        return [row for row in own if row.clip in names]


def _opening(small: tuple[int, int], parts: Parts, b_frames: int) -> list[StreamSetting]:
    """What says most about the levers at once; `b_frames` are as many as the delay has room for."""
    size = None if small == parts.size_px else small
    found = [
        StreamSetting(),
        StreamSetting(b_frames=b_frames),
        StreamSetting(size),
        StreamSetting(size, b_frames=b_frames),
        StreamSetting(size, b_frames=b_frames, preset="medium"),
        StreamSetting(size, b_frames=b_frames, map="feedback"),
        StreamSetting(size, b_frames=b_frames, map="accmodel"),
    ]
    return list(dict.fromkeys(found))


def _hopeful(
    belief: Belief, gains: Gains, known: Sequence[StreamSetting], settings: ProfileSettings
) -> list[StreamSetting]:
    """The unmeasured settings that may be the best; and of those the simpler where two may be as good."""
    done = {each.setting for each in gains.seen}
    dear = [each for each in gains.seen if each.camera_ratio > settings.camera_budget]

    def too_dear(setting: StreamSetting) -> bool:
        # What adds levers to a stream that is too dear already is no cheaper.
        return any(
            setting.size_px == each.setting.size_px
            and complexity(setting) > complexity(each.setting)
            and setting.map in (each.setting.map, "accmodel")
            and setting.b_frames >= each.setting.b_frames
            for each in dear
        )

    def promise(setting: StreamSetting) -> float:
        mean, sd = belief.of(setting)
        return mean - _HOPE * sd + 0.01 * complexity(setting)

    free = [each for each in known if each not in done and not too_dear(each)]
    return sorted(free, key=promise)[:_PER_ROUND]


def _fitting(belief: Belief, gains: Gains, settings: ProfileSettings) -> list[StreamSetting]:
    """What was measured to keep the share within the budgets. Raises EvaluationError where nothing was."""
    known = set(belief.settings)
    fitting = [each.setting for each in gains.seen if _fits(each, settings) and each.setting in known]
    if not fitting:
        raise EvaluationError(_nearest(gains.seen, settings))
    return fitting


def _finalists(belief: Belief, gains: Gains, settings: ProfileSettings) -> list[StreamSetting]:
    """The measured settings that are believed best, and what the choice would replace."""
    fitting = _fitting(belief, gains, settings)
    best = sorted(fitting, key=lambda each: belief.of(each)[0])[:_FINALISTS]
    chain = [step.setting for step in choose(belief, fitting)]
    return list(dict.fromkeys([*best, *chain]))


def _fits(seen: Seen, settings: ProfileSettings) -> bool:
    return (
        seen.reached
        and seen.camera_ratio <= settings.camera_budget
        and not (seen.delay_ms > settings.delay_budget_ms)
    )


def _nearest(seen: Sequence[Seen], settings: ProfileSettings) -> str:
    cheap = min(seen, key=lambda each: each.camera_ratio)
    quick = min(seen, key=lambda each: each.delay_ms)
    budgets = f"a camera budget of {settings.camera_budget:g} and {settings.delay_budget_ms:g} ms"
    return (
        f"no stream keeps {settings.keep:.0%} of the ceiling within {budgets}. The cheapest, "
        f"{cheap.setting.name}, takes {cheap.camera_ratio:.2f} times a plain x264's CPU; the quickest, "
        f"{quick.setting.name}, {quick.delay_ms:.0f} ms"
    )


def _confirmed(chain: list[Step], judged: Gains) -> list[Step]:
    """The chain without those at its end that surely lose on the other half against what they replaced."""
    while len(chain) > 1:
        last, before = judged.of(chain[-1].setting), judged.of(chain[-2].setting)
        if last is None or before is None or last.gain <= before.gain + max(last.sd, 0.03):
            break
        chain = chain[:-1]
    return chain


def _delay_bound_ms(setting: StreamSetting, parts: Parts) -> float:
    # In the encoder and in the decoder's reordering together.
    frames = setting.mbtree_frames + (setting.b_frames + 1 if setting.b_frames else 0)
    return _BASE_DELAY_MS + 1000 * frames / float(parts.frame_rate)


def _even(side_px: float) -> int:
    return max(2, 2 * round(side_px / 2))
