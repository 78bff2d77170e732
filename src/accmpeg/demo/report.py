"""The demo's report: one self-contained HTML file with the table and the pictures."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

import accmpeg
from accmpeg.demo.comparison import LINK_BANDWIDTH_BPS, Comparison, Row
from accmpeg.errors import SinkError
from accmpeg.media.frames import plane_view, rgb_of
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.heatmap import heat_over, offsets_over
from accmpeg.policy import GradedPolicy
from accmpeg.policy.base import bit_weights
from accmpeg.tasks.drawing import draw

__all__ = ["report_rows", "write_report"]

_WIDTH_PX = 640
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One picture of the report as a data address, with its caption."""

    caption: str
    source: str


def report_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table as plain values, a row per method, for the report, the terminal and JSON."""
    return [_row_values(row, comparison) for row in comparison.rows]


def _row_values(row: Row, comparison: Comparison) -> dict[str, Any]:
    cell = row.cell
    return {
        "method": row.title,
        "bytes": cell.size_bytes,
        "bitrate_kbps": round(cell.bitrate_bps / 1000, 1),
        "accuracy_vs_labels": None if cell.label_accuracy is None else round(cell.label_accuracy.value, 4),
        "accuracy_vs_source": round(cell.accuracy.value, 4),
        "camera_ms_per_frame": round(cell.camera_ms_per_frame, 2),
        "delay_p50_ms": round(row.delay_p50_ms),
        "delay_p95_ms": round(row.delay_p95_ms),
    }


def write_report(comparison: Comparison, path: Path, *, synthetic: bool) -> None:
    """Writes the HTML report. Raises SinkError where the file can't be written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("accmpeg.demo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    document = environment.get_template("report.html").render(
        version=accmpeg.__version__,
        synthetic=synthetic,
        clip=comparison.clip,
        dnn=comparison.dnn.card,
        accmodel=comparison.accmodel.card,
        bitrate_kbps=comparison.bitrate_bps / 1000,
        link_mbps=LINK_BANDWIDTH_BPS / 1e6,
        step=comparison.step,
        rows=report_rows(comparison),
        source_accuracy=None if comparison.source_accuracy is None else comparison.source_accuracy.value,
        scenes=_scenes(comparison),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"can't write the report {path}: {error.strerror}; choose another --out") from error


def _scenes(comparison: Comparison) -> list[tuple[int, list[Picture]]]:
    """A few frames of the clip, each with the pictures that tell its story."""
    clip, step = comparison.clip, comparison.step
    scenes = []
    for index in comparison.pictured:
        sample, frame = index // step, clip.frames[index]
        rgb = rgb_of(frame)
        scores = comparison.accmodel.predict(frame)
        weights = bit_weights(plane_view(frame, 0), *MacroblockGrid(frame.width, frame.height).shape)
        policy = GradedPolicy(object_threshold=comparison.accmodel.object_threshold)
        offsets = policy.qp_offsets(scores.accgrad, scores.objects, weights)
        if clip.labels is not None:
            truth = "Source, true labels", _drawn(rgb, clip.labels[index], comparison)
        else:
            truth = "Source, the server DNN's results", _drawn(rgb, comparison.references[sample], comparison)
        pictures = [truth]
        for row in comparison.rows:
            image = rgb_of(row.cell.seen[index])
            pictures.append((f"{row.title}: results", _drawn(image, row.cell.results[sample], comparison)))
        pictures.append(
            ("Predicted accuracy gradient (log scale, bright is high)", heat_over(rgb, scores.accgrad))
        )
        pictures.append(("QP offsets (green finer, violet coarser)", offsets_over(rgb, offsets)))
        scenes.append((index, [Picture(caption, _data_address(image)) for caption, image in pictures]))
    return scenes


def _drawn(rgb: NDArray[np.uint8], result: Any, comparison: Comparison) -> NDArray[np.uint8]:
    card = comparison.dnn.card
    return draw(rgb, result, card.classes, score_threshold=card.score_threshold)


def _data_address(rgb: NDArray[np.uint8]) -> str:
    height = max(1, round(rgb.shape[0] * _WIDTH_PX / rgb.shape[1]))
    small = cv2.resize(rgb, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
