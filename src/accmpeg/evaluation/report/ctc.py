"""Results as CSV in the layout of the MPEG common test conditions' tooling for machine vision.

CompressAI-Vision (InterDigital, `compressai_vision/run/eval_remote_inference.py`) writes a `summary.csv` per
sequence and QP; its `utils/mpeg_template_format.py` stacks them by these column names into the tables of the
conditions (VCM), sorted by sequence and QP. A file here holds such rows for one server DNN and one method.

- `Dataset` is the clip, `fps` its frame rate, `num_of_coded_frame` its number of frames;
- `bitrate (kbps)` counts everything that crosses the network, keyframes by their share of a GOP;
- `end_accuracy` is in percent, as in the conditions' template: the task's usual measure (AP@0.5, mIoU, …)
  against the server DNN's own answers, pooled over the clip;
- `encode`, `decode` and `nn_task` are seconds for the whole clip: all work of the camera, all of the server
  but its DNN, and the DNN on every frame, on one core of the machine that measured.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from accmpeg.errors import SinkError
from accmpeg.evaluation.bench.rows import MAIN_MEASURES, CellRow

__all__ = ["CTC_COLUMNS", "ctc_rows", "write_ctc"]

CTC_COLUMNS = (
    "Dataset",
    "fps",
    "num_of_coded_frame",
    "qp",
    "bitrate (kbps)",
    "end_accuracy",
    "encode",
    "decode",
    "nn_task",
)


def ctc_rows(rows: Sequence[CellRow]) -> list[dict[str, str | float]]:
    """The finished points of one method for one server DNN, by clip and then QP.

    Failed cells have no row, nor have those without a figure of the usual measure (nothing to find).
    """
    points = [row for row in rows if row.status == "ok" and row.role == "method"]
    done = [row for row in points if MAIN_MEASURES[row.task] in row.measures]
    return [
        dict(
            zip(
                CTC_COLUMNS,
                (
                    row.clip,
                    row.frame_rate,
                    row.frames,
                    row.quality,
                    row.bitrate_bps / 1000,
                    100 * row.measures[MAIN_MEASURES[row.task]],
                    row.camera_ms * row.frames / 1000,
                    _server_ms(row) * row.frames / 1000,
                    row.infer_ms * row.frames / 1000,
                ),
                strict=True,
            )
        )
        for row in sorted(done, key=lambda row: (row.clip, row.quality))
    ]


def _server_ms(row: CellRow) -> float:
    return sum(ms for stage, ms in row.stage_ms.items() if stage.startswith("server: "))


def write_ctc(rows: Sequence[CellRow], folder: Path) -> list[Path]:
    """Writes `folder/DNN/METHOD.csv`; raises SinkError where it can't."""
    written = []
    for dnn, method in dict.fromkeys((row.dnn, row.method) for row in rows):
        table = ctc_rows([row for row in rows if (row.dnn, row.method) == (dnn, method)])
        if not table:
            continue
        path = folder / dnn / f"{method}.csv"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, CTC_COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
        except OSError as error:
            raise SinkError(f"can't write {path}: {error.strerror}") from error
        written.append(path)
    return written
