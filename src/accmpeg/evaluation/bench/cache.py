"""What a sweep works out once and keeps, by the hash of its inputs: reference results, plain streams."""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import DnnAwayError
from accmpeg.media.codecs import CODECS, EncoderSettings
from accmpeg.media.encoder import AccessUnit
from accmpeg.tasks.arrays import result_arrays, result_from_arrays

__all__ = [
    "CodedFrame",
    "StreamCache",
    "content_hash",
    "load_arrays",
    "read_results",
    "save_arrays",
    "stops_all",
    "write_results",
]


@dataclass(frozen=True, slots=True)
class CodedFrame:
    """What the camera made of one frame, and the CPU milliseconds of each stage."""

    units: Sequence[AccessUnit]
    stage_ms: dict[str, float]


def content_hash(*parts: Any) -> str:
    """A hash of plain values; equal values give equal hashes, in any process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def stops_all(error: BaseException) -> bool:
    """Whether what comes next would fail of it, too: a full or read-only disk, a server DNN that is away."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    return isinstance(error, DnnAwayError) or (isinstance(error, OSError) and error.errno in full)


class StreamCache:
    """Plain streams of one clip, which do not depend on the server DNN: a file each."""

    def __init__(self, folder: Path, clip_key: str) -> None:
        self._folder, self._clip_key = folder, clip_key

    def read(self, settings: EncoderSettings) -> list[CodedFrame] | None:
        """One entry per frame and one for the flush; None if there is no whole file."""
        arrays = load_arrays(self._path(settings))
        if arrays is None:
            return None
        frames = []
        times = json.loads(arrays["stage_ms"].tobytes())
        starts = np.concatenate([[0], np.cumsum(arrays["sizes"])])
        data = arrays["data"].tobytes()
        numerator, denominator = arrays["time_base"].tolist()
        time_base = Fraction(numerator, denominator)
        units = [
            AccessUnit(data[starts[i] : starts[i + 1]], pts, dts, time_base, bool(key))
            for i, (pts, dts, key) in enumerate(arrays["stamps"].tolist())
        ]
        taken = 0
        for count, stage_ms in zip(arrays["counts"].tolist(), times, strict=True):
            frames.append(CodedFrame(units[taken : taken + count], stage_ms))
            taken += count
        return frames

    def write(self, settings: EncoderSettings, frames: Sequence[CodedFrame]) -> None:
        """Keeps a stream; raises `OSError` (full disk)."""
        units = [unit for frame in frames for unit in frame.units]
        if not units:
            return
        time_base = units[0].time_base
        save_arrays(
            self._path(settings),
            {
                "data": np.frombuffer(b"".join(unit.data for unit in units), np.uint8),
                "sizes": np.asarray([unit.size_bytes for unit in units]),
                "stamps": np.asarray([(unit.pts, unit.dts, unit.is_keyframe) for unit in units]),
                "counts": np.asarray([len(frame.units) for frame in frames]),
                "time_base": np.asarray([time_base.numerator, time_base.denominator]),
                "stage_ms": np.frombuffer(json.dumps([f.stage_ms for f in frames]).encode(), np.uint8),
            },
        )

    def _path(self, settings: EncoderSettings) -> Path:
        # The same settings may mean another stream in another version of this package.
        options = CODECS[settings.codec].options(settings)
        return self._folder / f"stream-{content_hash(self._clip_key, asdict(settings), options)[:32]}.npz"


def read_results(path: Path) -> list[Any] | None:
    """The results that `write_results` kept; None if there is no whole file."""
    arrays = load_arrays(path)
    if arrays is None:
        return None
    results: list[Any] = []
    for index in range(int(arrays["count"])):
        prefix = f"{index}/"
        own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        masks = [own.pop(name) for name in _MASKS if name in own]
        result = result_from_arrays(own)
        if masks:
            runs, counts, crops, offsets, shape = masks
            rles = np.split(runs, np.cumsum(counts)[:-1]) if len(counts) else []
            result.mask = sv.CompactMask(rles, crops, offsets, tuple(shape.tolist()))
        results.append(result)
    return results


def write_results(path: Path, results: Sequence[Any]) -> None:
    """Keeps the server DNN's results of a clip's frames; raises `OSError` (full disk)."""
    arrays = {
        f"{index}/{name}": array
        for index, result in enumerate(results)
        for name, array in _arrays_of(result).items()
    }
    save_arrays(path, {"count": np.asarray(len(results)), **arrays})


_MASKS = ("mask_runs", "mask_run_counts", "mask_crops", "mask_offsets", "mask_shape")


def _arrays_of(result: Any) -> Mapping[str, NDArray[Any]]:
    """As `result_arrays`, but masks as run lengths: whole, those of one frame's 90 candidates took 80 MB."""
    masks = getattr(result, "mask", None)
    if not isinstance(masks, sv.CompactMask):
        return result_arrays(result)
    crops = [masks.crop(index) for index in range(len(masks))]
    runs = [np.asarray(sv.mask_to_rle(crop), np.int32) for crop in crops]
    packed = (
        np.concatenate([np.zeros(0, np.int32), *runs]),
        np.asarray([len(each) for each in runs], np.int64),
        np.asarray([crop.shape for crop in crops], np.int32).reshape(-1, 2),
        masks.offsets,
        np.asarray(masks.image_shape),
    )
    return {**result_arrays(replace(result, mask=None)), **dict(zip(_MASKS, packed, strict=True))}


def load_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays that `save_arrays` kept; None if there is no whole file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, EOFError, ValueError, BadZipFile):  # after a power cut: there, but empty
        return None


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Keeps arrays by name in one step, without pickling; raises `OSError` (full disk)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, because two workers may make the same thing at once.
    part = path.with_suffix(f".{np.random.default_rng().integers(1 << 62):x}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
