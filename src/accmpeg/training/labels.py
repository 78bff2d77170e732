"""The label set on disk: one `.npz` per frame, a journal of what was done, and a manifest.

```
FOLDER/
  manifest.json        server DNN (name, task, sha256), its card, settings, footage, counts, skipped
  journal.jsonl        one line per finished label: what resuming reads
  0000/000000.npz …    at most 1000 labels per folder
```

Arrays of a label: `accgrad_log2` float16 (rows, cols); `objects` bool (rows, cols) where the task has
objects: macroblocks touched by what the server DNN reports at high quality; `y` uint8 (h, w) and `uv` uint8
(2, h/2, w/2): the AccModel's input planes of the undistorted frame; `frame_size_px` (width, height), whose
`MacroblockGrid` the maps are on; and the server DNN's result at high quality as `result_*`.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accmpeg.errors import LabelError
from accmpeg.files import write_whole
from accmpeg.media.planes import Planes

__all__ = [
    "ACCGRAD_LOG2_FLOOR",
    "JOURNAL_NAME",
    "MANIFEST_NAME",
    "Journal",
    "Label",
    "LabelItem",
    "LabelSet",
    "label_file",
    "pack_label",
    "read_labels",
    "read_manifest",
    "write_manifest",
]

ACCGRAD_LOG2_FLOOR = -24.0
"""Lowest stored log₂ AccGrad; zero gradients are stored as this."""

FORMAT_VERSION = 1
LABELS_PER_FOLDER = 1000
MANIFEST_NAME = "manifest.json"
JOURNAL_NAME = "journal.jsonl"
_RESULT_PREFIX = "result_"


@dataclass(frozen=True, slots=True)
class Label:
    """What the server DNN says about one frame; maps are on `MacroblockGrid(width_px, height_px)`."""

    accgrad_log2: NDArray[np.float32]
    objects: NDArray[np.bool_] | None
    planes: Planes
    width_px: int
    height_px: int
    result: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelItem:
    """Where a label lies and which frame it is of; `load` reads it."""

    file: Path
    clip: str
    source: str
    frame_index: int

    def load(self) -> Label:
        """Reads the label; raises `LabelError` where the file is missing or damaged."""
        try:
            # Opened here, because np.load leaves its own file open when the archive is damaged.
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            width_px, height_px = (int(size) for size in stored["frame_size_px"])
            return Label(
                accgrad_log2=stored["accgrad_log2"].astype(np.float32),
                objects=stored.get("objects"),
                planes=Planes(stored["y"], stored["uv"]),
                width_px=width_px,
                height_px=height_px,
                result={
                    name.removeprefix(_RESULT_PREFIX): array
                    for name, array in stored.items()
                    if name.startswith(_RESULT_PREFIX)
                },
            )
        # A damaged archive surfaces as whatever the zip, zlib or npy layer met first.
        except Exception as error:
            raise LabelError(f"{self.file} can't be read ({error}): delete it and label again") from error


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A folder of labels made with one server DNN and one group of settings."""

    folder: Path
    dnn: Mapping[str, str]
    settings: Mapping[str, Any]
    items: Sequence[LabelItem]
    skipped: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[LabelItem]:
        return iter(self.items)

    @property
    def clips(self) -> list[str]:
        """Names of the clips that have labels, in order of first appearance."""
        return list(dict.fromkeys(item.clip for item in self.items))


def label_file(folder: Path, number: int) -> Path:
    """Where label `number` lies."""
    return folder / f"{number // LABELS_PER_FOLDER:04d}" / f"{number:06d}.npz"


def pack_label(label: Label) -> bytes:
    """A label as the content of its file: the same bytes for the same label."""
    arrays: dict[str, NDArray[Any]] = {
        "accgrad_log2": np.maximum(label.accgrad_log2, ACCGRAD_LOG2_FLOOR).astype(np.float16),
        "y": label.planes.y,
        "uv": label.planes.uv,
        "frame_size_px": np.asarray((label.width_px, label.height_px), np.int32),
        **{f"{_RESULT_PREFIX}{name}": array for name, array in label.result.items()},
    }
    if label.objects is not None:
        arrays["objects"] = label.objects
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def read_labels(folder: str | Path) -> LabelSet:
    """Opens a label set; labels are read one by one through `LabelItem.load`.

    Args:
        folder: One that `label_footage` filled.

    Raises:
        LabelError: The folder has no manifest, or is of another version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise LabelError(f"{folder} is not a label set (no {MANIFEST_NAME}): make one with `accmpeg label`")
    journal = Journal.read(folder)
    items = [
        LabelItem(folder / entry["file"], entry["clip"], entry["source"], entry["frame_index"])
        for entry in journal.labels.values()
    ]
    return LabelSet(folder, manifest["dnn"], manifest["settings"], items, manifest.get("skipped", []))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None where there is none yet; raises `LabelError` for one that can't be understood."""
    path = folder / MANIFEST_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} can't be read ({error}); label again into another folder") from error
    if manifest.get("format") != FORMAT_VERSION:
        raise LabelError(
            f"{path} has format {manifest.get('format')!r}; this version reads {FORMAT_VERSION}: label again"
        )
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest in one step; raises `OSError`."""
    text = json.dumps({"format": FORMAT_VERSION, **manifest}, indent=1) + "\n"
    write_whole(folder / MANIFEST_NAME, text.encode())


@dataclass
class Journal:
    """The labels of a folder in the order of their frames, by source and frame index."""

    path: Path
    labels: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Journal":
        """Reads a folder's journal (may be missing), passing over a line that a crash cut short."""
        journal = cls(folder / JOURNAL_NAME)
        try:
            text = journal.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return journal
        except (OSError, ValueError) as error:
            raise LabelError(f"{journal.path} can't be read ({error}); label into another folder") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            journal._take(entry)
        return journal

    def forget_missing(self) -> set[str]:
        """Forgets labels whose file is gone, so that they are made again; returns what they were of."""
        gone = [key for key, entry in self.labels.items() if not (self.path.parent / entry["file"]).is_file()]
        for key in gone:
            del self.labels[key]
        return {source for source, _ in gone}

    def _take(self, entry: dict[str, Any]) -> None:
        self.labels[entry["source"], entry["frame_index"]] = entry

    def add(self, source: str, frame_index: int, clip: str, file: Path, checksum: int | None = None) -> None:
        """Notes a finished label, and the checksum of its picture; raises `OSError`."""
        entry = {"file": file.as_posix(), "clip": clip, "source": source, "frame_index": frame_index}
        entry |= {"checksum": checksum}
        # A leading newline closes a line that an earlier crash or full disk may have cut short.
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + json.dumps(entry))
        self._take(entry)

    @property
    def next_number(self) -> int:
        """The first label number not yet taken."""
        numbers = (int(Path(entry["file"]).stem) for entry in self.labels.values())
        return max(numbers, default=-1) + 1
