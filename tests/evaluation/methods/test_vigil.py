"""Vigil: what the camera's detector sees is sent, the rest is grey and costs nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import dilate

Record = Callable[..., Any]


def pixels(mask: np.ndarray) -> np.ndarray:
    return mask.repeat(16, axis=0).repeat(16, axis=1)[:360, :640]


def test_objects_are_sent_and_the_rest_is_grey(
    street: Clip, context: MethodContext, demo_accmodel: AccModel, record: Record
) -> None:
    session = record(street, METHODS["vigil"], context, keep=[7])
    source, seen = street.frames[7], session.seen[7]
    objects = demo_accmodel.predict(source).objects
    assert objects is not None
    kept = dilate(objects >= demo_accmodel.object_threshold, 1)
    assert 0.05 < kept.mean() < 0.95
    error = np.abs(plane_view(seen, 0).astype(float) - plane_view(source, 0))
    assert error[pixels(kept)].mean() < 6
    # A macroblock further out, where deblocking at the border does not reach.
    outside = pixels(~dilate(kept, 1))
    assert outside.any()
    assert np.abs(plane_view(seen, 0)[outside].astype(float) - 128).max() <= 3
    whole = record(street, METHODS["constant-qp"], context)
    assert bytes_of(session.flows, "uplink") < bytes_of(whole.flows, "uplink")


def test_the_detectors_time_counts_on_every_frame(
    street: Clip, context: MethodContext, record: Record
) -> None:
    session = record(street, METHODS["vigil"], context, frames=6)
    camera_steps = [[step for step in flow.steps if step.place == "camera"] for flow in session.flows]
    # Detector, blanking, encoder; the last flow has the encoder's flush too.
    assert [len(steps) for steps in camera_steps] == [3, 3, 3, 3, 3, 4]
    assert session.stage_ms["camera: accmodel"] > 0


def test_an_accmodel_without_objects_is_refused(
    street: Clip, context: MethodContext, demo_accmodel: AccModel, record: Record
) -> None:
    card = demo_accmodel.card.model_copy(update={"outputs": ["accgrad"]})
    blind = AccModel(card, lambda planes: np.zeros((1, 22, 40), np.float32))
    with pytest.raises(UsageError, match=r"vigil.*objects map"):
        record(street, METHODS["vigil"], replace(context, accmodel=blind))
    with pytest.raises(UsageError, match="--accmodel"):
        record(street, METHODS["vigil"], replace(context, accmodel=None))
