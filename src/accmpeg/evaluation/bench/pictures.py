"""What a method sees and does on one frame, as pictures: results, scores, offsets."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from accmpeg.accmodel.runtime import AccModel
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods import Method, MethodContext
from accmpeg.media.frames import rgb_of
from accmpeg.media.heatmap import heat_over, offsets_over
from accmpeg.steering import GradedPolicy
from accmpeg.tasks.drawing import draw

__all__ = ["drawn_result", "picture_frame", "pictured_method", "score_pictures", "write_pictures"]

_WIDTH_PX = 640

Picture = tuple[str, NDArray[np.uint8]]
"""A caption and an RGB image `(h, w, 3)`."""


def picture_frame(clip: Clip, step: int) -> int:
    """The measured frame in the middle of a clip."""
    measured = clip.measured_frames(step)
    return measured[len(measured) // 2]


def pictured_method(methods: Sequence[Method]) -> str | None:
    """The method of a sweep whose map is worth a picture: the last of ours that needs an AccModel."""
    ours = [each.name for each in methods if each.family == "accmpeg" and "accmodel" in each.needs]
    return ours[-1] if ours else None


def drawn_result(frame: av.VideoFrame, result: Any, dnn: ServerDnn) -> NDArray[np.uint8]:
    """A result drawn over its frame."""
    return draw(rgb_of(frame), result, dnn.card.classes, score_threshold=dnn.card.score_threshold)


def score_pictures(frame: av.VideoFrame, model: AccModel) -> list[Picture]:
    """The AccModel's heat map over a frame, and the graded policy's offsets."""
    scores, rgb = model.predict(frame), rgb_of(frame)
    policy = GradedPolicy(object_threshold=model.object_threshold)
    offsets = policy.qp_offsets(scores.accgrad, scores.objects)
    return [
        ("Predicted accuracy gradient (log scale, bright is high)", heat_over(rgb, scores.accgrad)),
        ("QP offsets (green finer, violet coarser)", offsets_over(rgb, offsets)),
    ]


def write_pictures(
    folder: Path,
    clip: Clip,
    index: int,
    title: str,
    context: MethodContext,
    session: Session,
    reference: Any,
) -> None:
    """Puts the pictures of one frame into `folder/pictures`, with a JSON file that lists them.

    `title` names the method and its operating point, `reference` is the server DNN's result on the source.
    """
    source, seen = clip.frames[index], session.seen[index]
    pictures: list[Picture] = [
        ("Source, the server DNN's results", drawn_result(source, reference, context.dnn)),
        (f"{title}: results", drawn_result(seen, session.results[index], context.dnn)),
        *score_pictures(source, context.need_accmodel("pictures")),
    ]
    stem = f"{clip.name}--{context.dnn.card.name}".replace("/", "_")
    target = folder / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    images: list[Mapping[str, str]] = []
    for number, (caption, rgb) in enumerate(pictures):
        height = max(1, round(rgb.shape[0] * _WIDTH_PX / rgb.shape[1]))
        small = cv2.resize(rgb, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        name = f"{stem}-{number}.jpg"
        _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        (target / name).write_bytes(jpeg.tobytes())
        images.append({"caption": caption, "file": name})
    listing = {"clip": clip.name, "dnn": context.dnn.card.name, "frame": index, "images": images}
    (target / f"{stem}.json").write_text(json.dumps(listing, indent=2))
