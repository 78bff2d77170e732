"""Whole streams by name: size, B-frames, look-ahead, preset, AQ and map together, as `accmpeg profile` tries.

    stream:source          stream:640x360+b2+feedback          stream:640x360+b2+mbtree10+accmodel+medium+aq0

`stream:source` is `aq-1`, what an untouched x264 sends; every part that follows changes one thing.
"""

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    DNN_SIZE_SHIFT,
    Family,
    Method,
    Need,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
)
from accmpeg.evaluation.methods.feedback_boxes import FeedbackStream
from accmpeg.steering.encoder import SteeredEncoder

__all__ = ["PREFIX", "MapKind", "StreamSetting", "whole_stream"]

PREFIX = "stream:"

MapKind = Literal["none", "feedback", "accmodel"]

_MAPS: dict[str, tuple[MapKind, Family, frozenset[Need]]] = {
    "none": ("none", "stock", frozenset()),
    "feedback": ("feedback", "feedback", frozenset({"boxes"})),
    "accmodel": ("accmodel", "accmpeg", frozenset({"accmodel"})),
}
_PRESETS = ("superfast", "veryfast", "faster", "fast", "medium", "slow")


@dataclass(frozen=True)
class StreamSetting:
    """Everything about a stream but how fine it is. The default is what an untouched x264 sends."""

    size_px: tuple[int, int] | None = None
    """Width and height; None is the source's."""
    b_frames: int = 0
    mbtree_frames: int = 0
    """How far x264's mb-tree looks ahead; 0 is off."""
    map: MapKind = "none"
    preset: str = "veryfast"
    aq_mode: int = 1

    @property
    def name(self) -> str:
        """
        >>> StreamSetting((640, 360), b_frames=2, map="feedback").name
        'stream:640x360+b2+feedback'
        """
        parts = ["source" if self.size_px is None else f"{self.size_px[0]}x{self.size_px[1]}"]
        parts += [f"b{self.b_frames}"] if self.b_frames else []
        parts += [f"mbtree{self.mbtree_frames}"] if self.mbtree_frames else []
        parts += [self.map] if self.map != "none" else []
        parts += [self.preset] if self.preset != "veryfast" else []
        parts += [f"aq{self.aq_mode}"] if self.aq_mode != 1 else []
        return PREFIX + "+".join(parts)

    @classmethod
    def of_name(cls, name: str) -> "StreamSetting":
        """The setting of a name; raises UsageError for one that says nothing that is known.

        >>> StreamSetting.of_name("stream:source+b2+aq0")
        StreamSetting(size_px=None, b_frames=2, mbtree_frames=0, map='none', preset='veryfast', aq_mode=0)
        """
        size, *parts = name.removeprefix(PREFIX).split("+")
        found = cls()
        if size != "source":
            if not (match := re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)):
                raise UsageError(f"{name}: {size!r} is no size: write {PREFIX}source or {PREFIX}640x360")
            found = replace(found, size_px=(int(match[1]), int(match[2])))
        for part in parts:
            if match := re.fullmatch(r"(b|mbtree|aq)(\d+)", part):
                number = int(match[2])
                if match[1] == "b":
                    found = replace(found, b_frames=number)
                elif match[1] == "mbtree":
                    found = replace(found, mbtree_frames=number)
                else:
                    found = replace(found, aq_mode=number)
            elif part in _MAPS:
                found = replace(found, map=_MAPS[part][0])
            elif part in _PRESETS:
                found = replace(found, preset=part)
            else:
                known = ("b2", "mbtree10", "aq0", *_MAPS, *_PRESETS)
                raise UsageError(f"{name}: {part!r} means nothing: use {', '.join(known)}")
        return found


def whole_stream(name: str) -> Method:
    """The method of a name that begins with `stream:`. Raises UsageError for one that can't be read."""
    setting = StreamSetting.of_name(name)
    _, family, needs = _MAPS[setting.map]
    return Method(
        name=name,
        family=family,
        source="x264 with these settings",
        size="source" if setting.size_px is None else "own",
        needs=needs,
        knobs={"preset": setting.preset, "b_frames": setting.b_frames, "aq_mode": setting.aq_mode},
        quality_shift=0 if setting.size_px is None else DNN_SIZE_SHIFT,
        open=partial(_open, setting),
    )


def _open(setting: StreamSetting, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` with the setting's AQ mode."""
    width_px, height_px = setting.size_px or (stream.width_px, stream.height_px)
    if width_px > stream.width_px or height_px > stream.height_px:
        raise UsageError(
            f"a stream of {width_px}x{height_px} from a source of {stream.width_px}x{stream.height_px} would "
            "only be larger: choose a size up to the source's"
        )
    settings = replace(stream, width_px=width_px, height_px=height_px, preset=setting.preset).settings(
        point,
        aq_mode=setting.aq_mode,
        steerable=setting.map != "none",
        b_frames=setting.b_frames,
        mbtree_frames=setting.mbtree_frames,
    )
    if setting.map == "feedback":
        return FeedbackStream(session, settings, point)
    if setting.map == "accmodel":
        context = session.context
        model = context.need_accmodel(setting.name)
        return SteeredStream(session, SteeredEncoder(settings, model, "graded", every=context.every))
    return SteeredStream(session, SteeredEncoder(settings, None))
