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
from accmpeg.demo.comparison import LINK_BANDWIDTH_BPS, OURS, Comparison, Row
from accmpeg.errors import SinkError
from accmpeg.evaluation.pictures import drawn_result, score_pictures
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.policy.base import bit_weights

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
        "ours": cell.method in OURS,
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
    clip, dnn, step = comparison.clip, comparison.dnn, comparison.step
    scenes = []
    for index in comparison.pictured:
        sample, frame = index // step, clip.frames[index]
        weights = bit_weights(plane_view(frame, 0), *MacroblockGrid(frame.width, frame.height).shape)
        if clip.labels is not None:
            truth = "Source, true labels", drawn_result(frame, clip.labels[index], dnn)
        else:
            truth = (
                "Source, the server DNN's results",
                drawn_result(frame, comparison.references[sample], dnn),
            )
        pictures = [truth]
        for row in comparison.rows:
            image = drawn_result(row.cell.seen[index], row.cell.results[sample], dnn)
            pictures.append((f"{row.title}: results", image))
        pictures += score_pictures(frame, comparison.accmodel, weights)
        scenes.append((index, [Picture(caption, _data_address(image)) for caption, image in pictures]))
    return scenes


def _data_address(rgb: NDArray[np.uint8]) -> str:
    height = max(1, round(rgb.shape[0] * _WIDTH_PX / rgb.shape[1]))
    small = cv2.resize(rgb, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
