"""Access units back to frames, with every macroblock's QP on request; and stills through the real encoder."""

from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.sidedata.encparams import VideoEncParams, VideoEncParamsType
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from accmpeg.errors import DecoderError
from accmpeg.media.closing import Closing
from accmpeg.media.codecs import SOFTWARE_DECODERS
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.frames import FrameCropper, to_yuv420p
from accmpeg.media.grid import MACROBLOCK_PX, MacroblockGrid

__all__ = ["Decoder", "encode_still", "qp_map"]

_BLOCK = np.dtype([(name, np.int32) for name in ("src_x", "src_y", "width", "height", "delta_qp")])


class Decoder(Closing):
    """Decodes access units as they come off the wire, one by one and without delay.

    `codec` is FFmpeg's decoder name (`Encoder.decoder_name`). `parameter_sets` may be empty when the first
    unit is a keyframe. `read_qp` keeps every block's QP for `qp_map`. `width_px` and `height_px` are the
    size of the source frames: an odd size comes back as such, cut from the even one that was coded.
    A bitstream that claims more than `max_pixels` counts as damaged, before memory is taken for it.

    Video bitstreams hold no checksums: damaged headers and truncated units are found, single flipped bits may
    not be, and a unit that never arrived is not missed. The transport has to be reliable or notice.
    """

    def __init__(
        self,
        codec: str = "h264",
        parameter_sets: bytes = b"",
        *,
        read_qp: bool = False,
        width_px: int | None = None,
        height_px: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        try:
            context = av.CodecContext.create(SOFTWARE_DECODERS.get(codec, codec), "r")
        except (av.FFmpegError, ValueError) as error:
            raise DecoderError(f"no decoder named {codec!r} here: use h264, hevc, vp9 or av1") from error
        if not isinstance(context, VideoCodecContext):
            raise DecoderError(f"{codec!r} decodes no video: use h264, hevc, vp9 or av1")
        context.thread_count = 1  # threads would hold frames back
        # Concealed damage looks like a frame; a server DNN must not be fed with one.
        context.options = {"err_detect": "explode"}
        if read_qp:
            context.options |= {"export_side_data": "venc_params"}
        if max_pixels is not None:
            context.options |= {"max_pixels": str(max_pixels)}
        if parameter_sets:
            context.extradata = parameter_sets
        self._codec = codec
        self._context: VideoCodecContext | None = context
        self._cropper = FrameCropper(width_px, height_px) if width_px and height_px else None
        self._waits_for_keyframe = False
        self.skipped_units = 0

    def decode(self, unit: AccessUnit | bytes) -> list[av.VideoFrame]:
        """The frames that this unit completes: one, unless the encoder reorders.

        Raises DecoderError for a damaged unit; after that, units before the next keyframe give no frames and
        count in `skipped_units`. Plain bytes have no timestamp and no keyframe mark, so after damage they
        are tried until the decoder finds a keyframe among them.
        """
        if self._context is None:
            raise DecoderError("this decoder is closed: open another one")
        data = unit.data if isinstance(unit, AccessUnit) else unit
        if not data:
            raise DecoderError("an empty access unit: nothing to decode")
        if self._waits_for_keyframe and isinstance(unit, AccessUnit) and not unit.is_keyframe:
            self.skipped_units += 1
            return []
        packet = av.Packet(data)
        if isinstance(unit, AccessUnit):
            packet.pts, packet.dts, packet.time_base = unit.pts, unit.dts, unit.time_base
        try:
            frames = self._context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            was_waiting, self._waits_for_keyframe = self._waits_for_keyframe, True
            self.skipped_units += 1
            self._context.flush_buffers()
            if was_waiting and not isinstance(unit, AccessUnit):
                return []
            raise DecoderError(
                f"damaged {self._codec} access unit ({len(data)} bytes): decoding resumes at a keyframe"
            ) from error
        if self._waits_for_keyframe:
            while frames and not frames[0].key_frame:
                del frames[0]
            if not frames:
                self.skipped_units += 1
                return []
            self._waits_for_keyframe = False
        return self._finished(frames)

    def flush(self) -> list[av.VideoFrame]:
        """The frames still held for reordering; the decoder takes no more units afterwards."""
        if self._context is None:
            return []
        try:
            frames = self._context.decode(None)
        except (av.FFmpegError, ValueError):
            frames = []
        self._context = None
        return self._finished(frames)

    def close(self) -> None:
        self._context = None

    def _finished(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        if self._cropper is None:
            return [to_yuv420p(frame) for frame in frames]
        return [self._cropper.crop(to_yuv420p(frame)) for frame in frames]


def qp_map(frame: av.VideoFrame) -> NDArray[np.int32]:
    """The QP of every macroblock, (rows, cols), of an H.264 frame decoded with `read_qp=True`.

    Trust it on IDR pictures: elsewhere a skipped macroblock reports the QP of the one before it. Raises
    DecoderError where the frame carries no QPs.
    """
    side_data = frame.side_data.get("VIDEO_ENC_PARAMS")
    if not isinstance(side_data, VideoEncParams) or side_data.codec_type != VideoEncParamsType.H264:
        raise DecoderError("this frame carries no QPs: decode H.264 with Decoder(read_qp=True)")
    grid = MacroblockGrid(frame.width, frame.height)
    if side_data.nb_blocks != grid.rows * grid.cols or side_data.block_size != _BLOCK.itemsize:
        raise DecoderError(
            f"{side_data.nb_blocks} QP blocks do not make a frame of {frame.width}x{frame.height} px"
        )
    blocks = np.frombuffer(
        memoryview(cast(Buffer, side_data)), _BLOCK, side_data.nb_blocks, side_data.blocks_offset
    )
    qps = np.empty(grid.shape, np.int32)
    qps[blocks["src_y"] // MACROBLOCK_PX, blocks["src_x"] // MACROBLOCK_PX] = (
        side_data.qp + blocks["delta_qp"]
    )
    return qps


def encode_still(
    frame: av.VideoFrame, qp: int, qp_offsets: NDArray[np.floating] | None = None
) -> tuple[av.VideoFrame, int]:
    """One IDR picture through libx264 at a fixed QP: the decoded frame, of the source size, and its bytes."""
    settings = EncoderSettings(
        width_px=frame.width,
        height_px=frame.height,
        frame_rate=Fraction(25),
        qp=qp,
        steerable=qp_offsets is not None,
    )
    before = frame.pts, frame.time_base
    with Encoder(settings) as encoder:
        units = encoder.encode(frame, qp_offsets) + encoder.flush()
        with Decoder(encoder.decoder_name, width_px=frame.width, height_px=frame.height) as decoder:
            frames = [decoded for unit in units for decoded in decoder.decode(unit)] + decoder.flush()
    if len(frames) != 1:
        raise DecoderError(f"one picture of {frame.width}x{frame.height} px came back as {len(frames)}")
    decoded = frames[0]
    if before[1] is not None:
        decoded.time_base = before[1]
    decoded.pts = before[0]
    return decoded, sum(unit.size_bytes for unit in units)
