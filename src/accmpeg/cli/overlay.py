"""The side-by-side video that `encode --overlay` writes."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
import numpy as np
from numpy.typing import NDArray

from accmpeg.errors import MediaError
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.frames import rgb_of, to_yuv420p
from accmpeg.media.heatmap import heat_over, offsets_over
from accmpeg.media.sink import open_sink

if TYPE_CHECKING:
    from accmpeg.camera import SteeredEncoder

__all__ = ["OverlayWriter"]

_PANEL_WIDTH_PX = 640


class OverlayWriter:
    """Three panels a frame: the decoded stream with the DNN's results, the scores, the QP offsets."""

    def __init__(self, path: Path, dnn_card: Path | None, settings: EncoderSettings) -> None:
        self._dnn = None
        if dnn_card is not None:
            from accmpeg.dnn.base import load_dnn

            self._dnn = load_dnn(dnn_card)
        self._decoder: Decoder | None = None
        self._panel = (
            _PANEL_WIDTH_PX,
            max(2, round(settings.height_px * _PANEL_WIDTH_PX / settings.width_px / 2) * 2),
        )
        self._encoder = Encoder(
            EncoderSettings(
                width_px=3 * self._panel[0],
                height_px=self._panel[1],
                frame_rate=settings.frame_rate,
                time_base=settings.time_base,
                pixel_aspect=settings.pixel_aspect,
                crf=20,
                steerable=False,
            )
        )
        self._sink = open_sink(str(path), self._encoder)

    def add(self, frame: av.VideoFrame, units: list[AccessUnit], steered: "SteeredEncoder") -> None:
        """Decodes the units of one frame and writes its panels."""
        if self._decoder is None:
            self._decoder = Decoder(
                steered.encoder.decoder_name,
                steered.encoder.parameter_sets,
                width_px=steered.settings.width_px,
                height_px=steered.settings.height_px,
            )
        for unit in units:
            for decoded in self._decoder.decode(unit):
                picture = self._panels(decoded, steered)
                picture.pts, picture.time_base = frame.pts, frame.time_base
                for written in self._encoder.encode(picture):
                    self._sink.write(written)

    def _panels(self, decoded: av.VideoFrame, steered: "SteeredEncoder") -> av.VideoFrame:
        rgb = rgb_of(decoded)
        panels = [self._with_results(decoded, rgb)]
        if steered.scores is not None and steered.qp_offsets is not None:
            panels += [heat_over(rgb, steered.scores.accgrad), offsets_over(rgb, steered.qp_offsets)]
        panels += [rgb] * (3 - len(panels))
        small = [_resized(panel, self._panel) for panel in panels]
        return to_yuv420p(av.VideoFrame.from_ndarray(np.hstack(small), format="rgb24"))

    def _with_results(self, decoded: av.VideoFrame, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._dnn is None:
            return rgb
        from accmpeg.tasks.drawing import draw

        card = self._dnn.card
        return draw(rgb, self._dnn.infer(decoded), card.classes, score_threshold=card.score_threshold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for unit in self._encoder.flush():
                self._sink.write(unit)
        except MediaError:
            if kind is None:
                raise
        finally:
            self._sink.__exit__(kind, error, trace)
            self._encoder.close()


def _resized(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return rgb_of(frame.reformat(width=size[0], height=size[1], interpolation="AREA"))
