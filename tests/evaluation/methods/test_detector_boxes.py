"""Detector boxes: two levels by what the camera's detector sees, held between two maps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.encoder import AccessUnit
from accmpeg.media.grid import dilate

Record = Callable[..., Any]


def qps_of(units: list[AccessUnit]) -> np.ndarray:
    decoder = Decoder(read_qp=True)
    return qp_map([*decoder.decode(units[0]), *decoder.flush()][0])


def test_blocks_outside_boxes_are_twelve_coarser(
    street: Clip, context: MethodContext, demo_accmodel: AccModel, record: Record
) -> None:
    steered = record(street, METHODS["detector-boxes"], context, frames=6, all_keyframes=True)
    plain = record(street, METHODS["aq-1"], context, frames=6, all_keyframes=True)
    objects = {index: demo_accmodel.predict(street.frames[index]).objects for index in (0, 3)}
    for index, mapped in ((0, 0), (3, 0), (4, 3), (5, 3)):
        inside = dilate(np.asarray(objects[mapped]) >= demo_accmodel.object_threshold, 1)
        added = qps_of(steered.sent[index]) - qps_of(plain.sent[index])
        # CRF moves the whole frame a little when its size changes, so only the difference is exact.
        assert abs(np.median(added[~inside]) - np.median(added[inside]) - 12) <= 1


def test_an_accmodel_without_objects_is_refused(
    street: Clip, context: MethodContext, demo_accmodel: AccModel, record: Record
) -> None:
    card = demo_accmodel.card.model_copy(update={"outputs": ["accgrad"]})
    blind = AccModel(card, lambda planes: np.zeros((1, 22, 40), np.float32))
    with pytest.raises(UsageError, match=r"detector-boxes.*objects map"):
        record(street, METHODS["detector-boxes"], replace(context, accmodel=blind))
