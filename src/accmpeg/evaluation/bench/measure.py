"""The cells of one clip and one server DNN: any method at any operating point.

```
clip ─▶ references (own answers, confirmed ones, true labels) ─▶ ceiling ─▶ method by method: point, point, …
                                                                             └▶ a row each, counts by block
```
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from accmpeg.accmodel.runtime import AccModel
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.cache import (
    StreamCache,
    content_hash,
    stops_all,
)
from accmpeg.evaluation.bench.costs import Costs, read_costs, write_costs
from accmpeg.evaluation.bench.pictures import picture_frame, pictured_method, write_pictures
from accmpeg.evaluation.bench.plan import CEILING_QUALITY, NULL_METHOD, Group
from accmpeg.evaluation.bench.points import COARSE, between, next_quality
from accmpeg.evaluation.bench.rows import Blocks, CellRow, Role
from accmpeg.evaluation.bench.run import PLAIN_METHOD, rehearse, run_method
from accmpeg.evaluation.bench.score import score
from accmpeg.evaluation.bench.scored import CACHE_NAME, ScoredClip
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.delay import paper_delay_s, summarise
from accmpeg.evaluation.link.emulator import Emulated, ServerMachine, emulate
from accmpeg.evaluation.methods import METHODS, Method, MethodContext, OperatingPoint
from accmpeg.evaluation.methods.base import DNN_SIZE_SHIFT
from accmpeg.evaluation.settings import SweepSettings

__all__ = ["Bench"]

_COSTS_NAME = "costs"
_MIDDLE = COARSE[len(COARSE) // 2]


class Bench:
    """One clip and one server DNN. Nothing is decoded or inferred before it is needed."""

    def __init__(self, group: Group, folder: Path, settings: SweepSettings) -> None:
        self._group, self._folder, self._settings = group, folder, settings
        self._scored = ScoredClip(group, folder, settings)
        name = f"{group.clip.name}--{group.dnn.card.name}".replace("/", "_")
        inputs = content_hash(
            group.clip.sha256, settings.limit, settings.every, group.dnn.card.model_dump(mode="json")
        )
        self._costs_file = folder / _COSTS_NAME / f"{name}-{inputs[:16]}.json"

    @cached_property
    def costs(self) -> Mapping[str, Costs]:
        """What the rehearsal found, by method."""
        return read_costs(self._costs_file)

    @property
    def costs_are_known(self) -> bool:
        return all(name in self.costs for name in self._group.method_names)

    def rehearse(self) -> None:
        """Measures and keeps the costs of the methods that have none yet."""
        missing = [each for each in self._group.methods.values() if each.name not in self.costs]
        size_px = self._scored.clip_size_px
        runs = [
            (method, OperatingPoint(quality=quality + self._shift(method, size_px)))
            for method in missing
            # What stages there are may depend on the point where a method chooses its sizes by it.
            for quality in (COARSE if method.size == "own" else (_MIDDLE,))
        ]
        found = rehearse(self._scored.clip, runs, OperatingPoint(quality=_MIDDLE), self._context)
        # Costs that cells have used stand, plain x264's among them.
        new = {name: costs for name, costs in found.items() if name not in self.costs}
        write_costs(self._costs_file, {**self.costs, **new})
        for settled in ("costs", "_context"):
            self.__dict__.pop(settled, None)

    def common_cells(self, known: Mapping[str, CellRow]) -> Iterator[CellRow]:
        """The rows that all methods are held against; those in `known` (by key) are not measured again."""
        ceiling = self._cell(known, PLAIN_METHOD, CEILING_QUALITY, "ceiling")
        yield ceiling
        # By the row, because a clip whose cells are all known need not be opened.
        size_px = ceiling.width_px, ceiling.height_px
        if ceiling.status == "ok" and self._group.dnn.card.input.stream_size_px(*size_px) != size_px:
            yield self._cell(known, PLAIN_METHOD, 0, "uncoded")

    def cells(self, known: Mapping[str, CellRow], methods: Sequence[str] = ()) -> Iterator[CellRow]:
        """The common rows, then those of these methods or all of the group's, in a fixed order."""
        common = self.common_cells(known)
        yield (ceiling := next(common))
        yield from common
        chosen = [self._group.methods[name] for name in methods or self._group.methods]
        if ceiling.status == "failed":
            # A clip or a network that can't be used: say so once for each method.
            for method in chosen:
                first = self._next_quality({}, method.quality_shift) or 0
                yield self._failed(method.name, first, "method", ceiling.reason or "")
            return
        size_px = ceiling.width_px, ceiling.height_px
        best = self._score(ceiling)
        for method in chosen:
            measured: dict[int, float] = {}
            shift = self._shift(method, size_px)
            while (quality := self._next_quality(measured, shift)) is not None:
                row = self._cell(known, method.name, quality, "method")
                yield row
                if row.status == "failed":
                    break
                measured[quality] = self._score(row) / best if best > 0 else 0.0
            if method.name == NULL_METHOD:
                for halfway in between(list(measured)):
                    yield self._cell(known, method.name, halfway, "null")

    def _shift(self, method: Method, size_px: tuple[int, int]) -> int:
        """The method's, less what a smaller picture has of it where the DNN's size is the clip's own."""
        stays = self._group.dnn.card.input.stream_size_px(*size_px) == size_px
        return method.quality_shift - (DNN_SIZE_SHIFT if stays and method.size == "dnn" else 0)

    def _next_quality(self, measured: Mapping[int, float], shift: int) -> int | None:
        settings = self._settings
        if settings.qualities:
            asked = [min(51, max(1, quality + shift)) for quality in settings.qualities]
            return next((quality for quality in asked if quality not in measured), None)
        return next_quality(measured, settings.points, shift=shift)

    def _score(self, row: CellRow) -> float:
        """By the reference that the points are chosen by: the strictest one there is."""
        name = "confirmed" if "confirmed" in row.blocks.counts else "own"
        value = score(np.asarray(row.blocks.counts[name]).sum(axis=0), self._scored.task)
        return 0.0 if math.isnan(value) else value

    def _cell(self, known: Mapping[str, CellRow], method: str, quality: float, role: Role) -> CellRow:
        key = self._group.cell_key(method, quality, role, self._settings)
        if key in known:
            return known[key]
        try:
            if role == "uncoded":
                return self._uncoded(key)
            return self._measure(key, self._method(method), quality, role)
        except Exception as error:  # one method's failure must not end the others' sweep
            if stops_all(error):
                raise
            reason = " ".join(str(error).split()) or "no reason given"
            return self._failed(method, quality, role, f"{type(error).__name__}: {reason}"[:500])

    def _method(self, name: str) -> Method:
        # The ceiling's method is needed in sweeps that leave it out, too.
        return self._group.methods.get(name) or METHODS[name]

    def _failed(self, method: str, quality: float, role: Role, reason: str) -> CellRow:
        key = self._group.cell_key(method, quality, role, self._settings)
        return CellRow(**self._named(key, method, quality, role), status="failed", reason=reason)

    def _measure(self, key: str, method: Method, quality: float, role: Role) -> CellRow:
        clip, settings = self._scored.clip, self._settings
        wanted = frozenset(self._scored.measured)
        pictured = (
            settings.pictures
            and role == "method"
            and method.name == pictured_method(list(self._group.methods.values()))
            and quality == _MIDDLE + self._shift(method, self._scored.clip_size_px)
        )
        shown = picture_frame(clip, settings.step)
        costs = self.costs.get(method.name)
        session = run_method(
            clip,
            method,
            OperatingPoint(quality=quality),
            self._context,
            wanted=wanted,
            costs=costs,
            keep=frozenset([shown]) if pictured else frozenset(),
        )
        if costs is None and self.costs and role != "ceiling":
            # What is free would fit any budget.
            raise EvaluationError(f"what {method.name} costs here could not be rehearsed")
        results = session.clip_results(method.name)
        if pictured:
            title = f"{method.name} at {quality:g}"
            write_pictures(self._folder, clip, shown, title, self._context, session, self._scored.own[shown])
        return self._row(key, method.name, quality, role, session, results)

    def _uncoded(self, key: str) -> CellRow:
        """Pristine frames at the DNN's size: what is lost before any coding."""
        clip, dnn = self._scored.clip, self._context.dnn
        width_px, height_px = self._scored.dnn_size_px
        size = clip.width_px, clip.height_px
        results = [
            dnn.infer(clip.frames[index].reformat(width=width_px, height=height_px), size)
            for index in self._scored.measured
        ]
        return CellRow(
            **self._common(key, PLAIN_METHOD, 0, "uncoded"),
            blocks=Blocks(frames=[], bytes=[], counts=self._scored.counts(results)),
            **self._scored.accuracies(results),
        )

    def _named(self, key: str, method: str, quality: float, role: Role) -> dict[str, Any]:
        card, named = self._group.dnn.card, {"key": key, "method": method, "quality": quality, "role": role}
        return {**named, "clip": self._group.clip.name, "dnn": card.name, "task": card.task}

    def _common(self, key: str, method: str, quality: float, role: Role) -> dict[str, Any]:
        clip = self._scored.clip
        return {
            **self._named(key, method, quality, role),
            "frames": len(clip.frames),
            "warm_frames": clip.warm_frames,
            "frame_rate": round(float(clip.frame_rate), 4),
            "width_px": clip.width_px,
            "height_px": clip.height_px,
            "step": self._settings.step,
            "source_bitrate_bps": round(clip.source_bitrate_bps, 1),
            "objects": self._scored.objects,
        }

    def _row(
        self, key: str, method: str, quality: float, role: Role, session: Session, results: Sequence[Any]
    ) -> CellRow:
        clip, settings = self._scored.clip, self._settings
        frames, traffic, costs = len(clip.frames), session.traffic, self.costs.get(method)
        sizes = traffic.blocks()
        bitrate_bps = traffic.bytes_per_frame * 8 * float(clip.frame_rate)
        delays, block_delays, reasons, paper = {}, {}, {}, {}
        emulated: Emulated | None = None
        for name, link in settings.links.items():
            emulated = emulate(session.flows, link, self._context.server)
            summary = summarise(emulated, clip.measured_frames(1))
            if summary.delay is None:
                reasons[name] = summary.reason or "no delay"
            else:
                delays[name] = summary.delay
                block_delays[name] = summary.blocks_ms
            if link.bandwidth_bps is not None:
                uses_accmodel = "accmodel" in self._method(method).needs
                size_bytes = round(bitrate_bps / 8 / float(clip.frame_rate) * frames)
                paper[name] = round(
                    paper_delay_s(size_bytes, frames, link.bandwidth_bps, accmodel=uses_accmodel), 4
                )
        camera_ms = sum(ms for stage, ms in session.stage_ms.items() if stage.startswith("camera: ")) / frames
        plain_ms = costs.plain_camera_ms if costs is not None else 0.0
        width_px, height_px = session.traffic.size_px or self._scored.clip_size_px
        return CellRow(
            **self._common(key, method, quality, role),
            gop_frames=traffic.gop_frames,
            stream_width_px=width_px,
            stream_height_px=height_px,
            keyframe_bytes=round(traffic.keyframe_bytes, 1),
            bitrate_bps=round(bitrate_bps, 1),
            blocks=Blocks(
                frames=sizes.frames,
                bytes=sizes.bytes,
                counts=self._scored.counts(results),
                delay_ms=block_delays,
            ),
            **self._scored.accuracies(results),
            camera_ms=round(camera_ms, 4),
            camera_ratio=round(camera_ms / plain_ms, 4) if plain_ms else 0.0,
            stage_ms={stage: round(ms / frames, 4) for stage, ms in sorted(session.stage_ms.items())},
            infer_ms=costs.infer_ms if costs is not None else 0.0,
            camera_load=round(emulated.camera_load, 4) if emulated else 0.0,
            server_load=round(max(emulated.server_load, emulated.dnn_load), 4) if emulated else 0.0,
            delays=delays,
            why_no_delay=reasons,
            paper_delay_s=paper,
        )

    @cached_property
    def _context(self) -> MethodContext:
        spec, settings = self._group.dnn, self._settings
        server = ServerMachine.gpu(float(self._scored.clip.frame_rate), settings.server_ms)
        if settings.server_cores is not None and self.costs:
            pass_ms = next(iter(self.costs.values())).infer_ms
            server = ServerMachine.measured(pass_ms, settings.server_cores)
        return MethodContext(
            self._scored.dnn,
            spec.card_file,
            None if spec.accmodel_file is None else AccModel.load(spec.accmodel_file),
            every=settings.every,
            link=settings.live_link,
            server=server,
            streams=StreamCache(
                self._folder / CACHE_NAME, content_hash(self._group.clip.sha256, settings.limit)
            ),
        )
