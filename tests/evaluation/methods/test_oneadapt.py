"""OneAdapt: gradients of received frames, once a second, counted, and used only when they have arrived."""

from collections.abc import Callable
from typing import Any

import numpy as np

from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.media.decoder import Decoder, encode_still, qp_map
from accmpeg.media.encoder import AccessUnit
from accmpeg.training.gradient import accuracy_gradient
from accmpeg.training.labeller import log2_accgrad
from tests.evaluation.methods.method_clips import sizes

Record = Callable[..., Any]


def qps_of(units: list[AccessUnit]) -> np.ndarray:
    decoder = Decoder(read_qp=True)
    return qp_map([*decoder.decode(units[0]), *decoder.flush()][0])


def true_log2_accgrad(context: MethodContext, street: Clip) -> np.ndarray:
    """The gradient of the first frame as a label has it: from the source, at low quality."""
    high, low = (encode_still(street.frames[0], qp)[0] for qp in (20, 40))
    reference = context.dnn.infer(high)
    return log2_accgrad(accuracy_gradient(context.shared["oneadapt"], context.dnn.task, reference, high, low))


def test_maps_come_once_a_second_and_late(street: Clip, context: MethodContext, record: Record) -> None:
    session = record(street, METHODS["oneadapt"], context, all_keyframes=True)
    plain = record(street, METHODS["aq-1"], context, all_keyframes=True)
    feedback = {index: row for index, row in enumerate(sizes(session, "downlink")) if row}
    # 10 frames/s: of frames 0 and 10, as int8 maps of 23 × 40 that deflate to less.
    assert list(feedback) == [0, 10]
    assert all(50 < size_bytes < 23 * 40 for (size_bytes,) in feedback.values())
    assert bytes_of(session.flows, "downlink") == sum(size_bytes for (size_bytes,) in feedback.values())
    # Beside the answers: no result waits for a gradient, and the DNN's queue has no part in it.
    assert session.stage_ms["server: gradient"] > 0
    (answered,) = (step for step in session.flows[0].steps if step.delivers)
    assert [step.place for step in answered.beside] == ["server", "downlink"]
    assert [step.place for step in session.flows[0].steps] == ["camera", "uplink", "server", "dnn", "server"]
    for index in (0, 1):
        assert [unit.data for unit in session.sent[index]] == [unit.data for unit in plain.sent[index]]
    added = qps_of(session.sent[2]) - qps_of(plain.sent[2])
    assert np.ptp(added) >= 8
    # The same first map all the second long.
    later = qps_of(session.sent[9]) - qps_of(plain.sent[9])
    assert np.corrcoef(added.ravel(), later.ravel())[0, 1] > 0.9
    # Finer where the true gradients are high, though taken from what was received.
    assert np.corrcoef(true_log2_accgrad(context, street).ravel(), -added.ravel())[0, 1] > 0.5
