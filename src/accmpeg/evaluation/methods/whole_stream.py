"""Whole streams by name: size, B-frames, look-ahead, preset, AQ and map together, as `accmpeg profile` tries.

    stream:source          stream:640x360+b2+feedback          stream:640x360+b2+mbtree10+accmodel+medium+aq0
    stream:source+feedback+strength0.5+margin1                 stream:source+accmodel+strength1.5+every5
    stream:source+gop1500

`stream:source` is `aq-1`, what an untouched x264 sends; every part that follows changes one thing.
"""

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

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
from accmpeg.steering.feedback import MARGIN_MACROBLOCKS

__all__ = ["MAP_EVERY", "PREFIX", "MapKind", "StreamSetting", "whole_stream"]

PREFIX = "stream:"

MapKind = Literal["none", "feedback", "accmodel"]

_MAPS: dict[MapKind, tuple[Family, frozenset[Need]]] = {
    "none": ("stock", frozenset()),
    "feedback": ("feedback", frozenset({"boxes"})),
    "accmodel": ("accmpeg", frozenset({"accmodel"})),
}
_PRESETS = ("superfast", "veryfast", "faster", "fast", "medium", "slow")
MAP_EVERY = 10
_PARTS = {
    "b": "b_frames",
    "mbtree": "mbtree_frames",
    "map": "map",
    "preset": "preset",
    "aq": "aq_mode",
    "gop": "gop_frames",
    "strength": "map_strength",
    "margin": "map_margin",
    "every": "map_every",
}
"""What a name is made of after the size, in this order: a letter or word and a number."""
_WORDS = ("map", "preset")
"""These are words of their own."""


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
    gop_frames: int = 250
    """From one keyframe to the next; a live stream to a server has `LIVE_GOP_FRAMES`."""
    map_strength: float = 1.0
    """Times the map's offsets."""
    map_margin: int = MARGIN_MACROBLOCKS
    """Of a map of the server's answers, in macroblocks."""
    map_every: int | None = None
    """Frames from one map of an AccModel to the next; None is as the sweep says, `MAP_EVERY` by default."""

    @property
    def name(self) -> str:
        """
        >>> StreamSetting((640, 360), b_frames=2, map="feedback", map_margin=1).name
        'stream:640x360+b2+feedback+margin1'
        """
        plain = StreamSetting()
        parts = ["source" if self.size_px is None else f"{self.size_px[0]}x{self.size_px[1]}"]
        for name, field in _PARTS.items():
            value = getattr(self, field)
            if value != getattr(plain, field):
                parts.append(value if name in _WORDS else f"{name}{value:g}")
        return PREFIX + "+".join(parts)

    @classmethod
    def of_name(cls, name: str) -> "StreamSetting":
        """The setting of a name; raises UsageError for one that says nothing that is known.

        >>> StreamSetting.of_name("stream:source+b2+aq0") == StreamSetting(b_frames=2, aq_mode=0)
        True
        """
        size, *parts = name.removeprefix(PREFIX).split("+")
        found: dict[str, Any] = {}
        if size != "source":
            if not (match := re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)):
                raise UsageError(f"{name}: {size!r} is no size: write {PREFIX}source or {PREFIX}640x360")
            found["size_px"] = int(match[1]), int(match[2])
        for part in parts:
            match = re.fullmatch(r"([a-z]+)(\d+|\d+\.\d+)", part)
            if match and match[1] in _PARTS and match[1] not in _WORDS:
                number = float(match[2])
                found[_PARTS[match[1]]] = int(number) if number.is_integer() else number
            elif part in _MAPS:
                found["map"] = part
            elif part in _PRESETS:
                found["preset"] = part
            else:
                known = ("b2", "mbtree10", *_MAPS, *_PRESETS, "aq0", "gop1500", "margin1", "every5")
                raise UsageError(f"{name}: {part!r} means nothing: use {', '.join(known)}")
        return cls(**found)


def whole_stream(name: str) -> Method:
    """The method of a name that begins with `stream:`. Raises UsageError for one that can't be read."""
    setting = StreamSetting.of_name(name)
    family, needs = _MAPS[setting.map]
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
    own = replace(
        stream,
        width_px=width_px,
        height_px=height_px,
        preset=setting.preset,
        gop_frames=setting.gop_frames,
    )
    settings = own.settings(
        point,
        aq_mode=setting.aq_mode,
        steerable=setting.map != "none",
        b_frames=setting.b_frames,
        mbtree_frames=setting.mbtree_frames,
    )
    strength = setting.map_strength
    if setting.map == "feedback":
        return FeedbackStream(
            session, settings, point, strength=strength, margin_macroblocks=setting.map_margin
        )
    if setting.map == "accmodel":
        context = session.context
        model = context.need_accmodel(setting.name)
        every = setting.map_every or context.every
        return SteeredStream(
            session, SteeredEncoder(settings, model, "graded", every=every, strength=strength)
        )
    return SteeredStream(session, SteeredEncoder(settings, None))
