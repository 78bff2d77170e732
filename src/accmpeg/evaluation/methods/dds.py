"""DDS: a coarse pass, regions that the server asks for, and a fine pass of only these."""

import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import av
import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat, keep_seen
from accmpeg.evaluation.methods.regions import scored_boxes
from accmpeg.media.encoder import AccessUnit, Encoder
from accmpeg.media.frames import pasted
from accmpeg.media.grid import MacroblockGrid
from accmpeg.tasks.matching import iou_matrix

__all__ = ["ROWS", "dds", "regions_wanted"]

_COARSER_QP = 10
_QUALITY_SHIFT = -6
"""Most of the picture is `_COARSER_QP` coarser than the point says."""
_LARGEST_SHARE = 0.3
_SURE_OVERLAP = 0.3
_SURE = 0.8
_LEAST = 0.25
"""Of the score threshold: what a candidate must reach to be worth a second look."""
_SAME_OVERLAP = 0.5
_SEGMENTED_SHARE = 0.2

BoolMap = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


def dds(chunk_frames: int = 15) -> Method:
    """Two passes: all at QP `quality` + 10 (the paper's pair is 36 and 26), then some regions at `quality`.

    Du et al., "Server-Driven Video Streaming for Deep Learning Inference", SIGCOMM 2020.

    ```
    15 frames ─ coarse pass ─▶ server DNN ─ regions ─▶ camera ─ fine pass of the regions ─▶ pasted, server DNN
    ```
    The camera collects chunks of 15 frames, as the authors do, and sends each in one go. The server DNN looks
    at all of them in one batch and asks for regions, whose macroblocks go back as one deflated bitmap per
    chunk. The camera blanks everything else to grey and codes that in a second stream; frames of which
    nothing is wanted are not in it, and have their result from the first pass. The server pastes the regions
    over the coarse frames and looks again, in one batch. All of it is one flow: both uploads, the round trip
    and both inferences are in the delay of the chunk's results, on top of the wait for the chunk to fill.

    Regions: candidates that score between a quarter of the DNN's threshold and 0.8, cover at most 30 % of the
    frame and overlap no surer candidate by more than 30 %: the paper's two filters with the values of the
    authors' code (the paper's own size limit of 4 % left near people coarse). For keypoints
    the score is that of the person times the mean confidence of its points. For segmentation, the paper
    takes where the two best classes are close; a class map says no more than where they change places, so it
    is the fifth of the macroblocks with the most class borders in them.

    Departures from the authors' code: their passes are smaller pictures (0.8 of each side), one file per
    chunk with its own keyframe; ours have the source's size and run on in two streams, which costs fewer
    bytes. They blank to black. A sure object of the first pass is kept if the second one lost it, as they do.
    There is no bitrate control: a point with a bitrate raises UsageError.
    """
    return Method(
        name="dds",
        family="region",
        source="Du et al., SIGCOMM 2020",
        knobs={"coarser_qp": _COARSER_QP},
        chunk_frames=chunk_frames,
        quality_shift=_QUALITY_SHIFT,
        open=partial(_open, chunk_frames),
    )


def _open(chunk_frames: int, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    if point.quality is None:
        raise UsageError("dds codes its two passes at fixed QPs: give it a quality, not a bitrate")
    coarse = replace(point, quality=min(51, point.quality + _COARSER_QP))
    return _DdsStream(
        session,
        Encoder(stream.settings(coarse, aq_mode=None)),
        Encoder(stream.settings(point, aq_mode=None)),
        chunk_frames,
    )


class _DdsStream:
    def __init__(self, session: Session, coarse: Encoder, fine: Encoder, chunk_frames: int) -> None:
        self._session, self._chunk_frames = session, chunk_frames
        self._coarse, self._fine = coarse, fine
        self._grid = MacroblockGrid(coarse.settings.width_px, coarse.settings.height_px)
        self._first = 0
        self._units: list[AccessUnit] = []

    def push(self, index: int, frame: av.VideoFrame) -> None:
        # Coded as it is captured; what waits for the chunk to fill is the upload.
        with self._session.camera("encode coarse"):
            self._units += self._coarse.encode(frame)
        if index + 1 - self._first == self._chunk_frames:
            self._round_trip(index + 1)

    def finish(self) -> None:
        if self._units:
            self._round_trip(self._session.index + 1)
        self._coarse.close()
        self._fine.close()

    def _round_trip(self, end: int) -> None:
        session, indices = self._session, range(self._first, end)
        units, self._units, self._first = self._units, [], end
        session.upload(units)
        frames = session.decode(units, self._coarse, stream="coarse")
        if len(frames) != len(indices):
            raise MethodError(f"dds sent {len(indices)} frames and {len(frames)} came back")
        coarse = dict(zip(indices, frames, strict=True))
        results = dict(zip(indices, session.infer_batch(frames), strict=True))
        with session.server("regions"):
            wanted = [regions_wanted(results[index], self._grid, self._threshold) for index in indices]
            message = zlib.compress(np.packbits(np.stack(wanted)).tobytes(), 9)
        asked = [index for index, mask in zip(indices, wanted, strict=True) if mask.any()]
        for index in indices:
            if index not in asked:
                keep_seen(session, index, coarse[index])
                session.deliver_result(index, results[index])
        session.download(len(message))
        masks = dict(zip(indices, self._unpacked(message, len(indices)), strict=True))
        fine_units: list[AccessUnit] = []
        for index in asked:
            with session.camera("blank"):
                picture = pasted(session.frame(index), None, ~masks[index])
            with session.camera("encode fine"):
                fine_units += self._fine.encode(picture)
        if not fine_units:
            return
        session.upload(fine_units)
        fine = session.decode(fine_units, self._fine, stream="fine")
        whole = []
        for index, frame in zip(asked, fine, strict=True):
            with session.server("paste"):
                whole.append(pasted(coarse[index], frame, masks[index]))
            keep_seen(session, index, whole[-1])
        for index, second in zip(asked, session.infer_batch(whole), strict=True):
            first = results[index]
            if not isinstance(first, np.ndarray):
                with session.server("merge"):
                    second = _with_lost(second, first)
            session.deliver_result(index, second)

    def _unpacked(self, message: bytes, frames: int) -> BoolMap:
        bits = np.unpackbits(np.frombuffer(zlib.decompress(message), np.uint8))
        shape = (frames, *self._grid.shape)
        return bits[: int(np.prod(shape))].reshape(shape).astype(np.bool_)

    @property
    def _threshold(self) -> float:
        return self._session.context.dnn.card.score_threshold


def regions_wanted(result: Any, grid: MacroblockGrid, score_threshold: float) -> BoolMap:
    """The macroblocks `(rows, cols)` of a coarse frame that a finer look may change the result in."""
    if isinstance(result, np.ndarray):
        return _class_borders(result, grid)
    boxes, certainty = _candidates(result)
    sure = certainty >= _SURE
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    small = sides.prod(axis=1) <= _LARGEST_SHARE * grid.width_px * grid.height_px
    free = iou_matrix(boxes, boxes[sure]).max(axis=1, initial=0.0) <= _SURE_OVERLAP
    return grid.cover_boxes(boxes[(certainty >= _LEAST * score_threshold) & ~sure & small & free])


def _candidates(result: Any) -> tuple[FloatArray, FloatArray]:
    """Boxes `(n, 4)` and how certain each is, 0 to 1."""
    boxes, scores = scored_boxes(result)
    if isinstance(result, sv.KeyPoints) and len(boxes):
        scores = scores * np.asarray(result.keypoint_confidence, np.float32).mean(axis=1)
    return boxes, scores


def _class_borders(classes: NDArray[np.uint8], grid: MacroblockGrid) -> BoolMap:
    borders = np.zeros(classes.shape, np.float32)
    borders[:, 1:] += classes[:, 1:] != classes[:, :-1]
    borders[1:] += classes[1:] != classes[:-1]
    large = cv2.resize(borders, (grid.width_px, grid.height_px), interpolation=cv2.INTER_LINEAR)
    density = grid.mean_pixels(large.astype(np.float32, copy=False))
    count = max(1, round(_SEGMENTED_SHARE * density.size))
    return np.asarray((density > 0) & (density >= np.partition(density.ravel(), -count)[-count]))


def _with_lost(second: Any, first: Any) -> Any:
    """The second pass's result and the first's sure objects that it has no object of the same class near."""
    boxes, _ = _candidates(second)
    first_boxes, certainty = _candidates(first)
    near = iou_matrix(first_boxes, boxes) >= _SAME_OVERLAP
    near &= np.asarray(first.class_id)[:, None] == np.asarray(second.class_id)[None, :]
    lost = (certainty >= _SURE) & ~near.any(axis=1)
    return type(second).merge([second, first[lost]]) if lost.any() else second


ROWS = (dds(),)
