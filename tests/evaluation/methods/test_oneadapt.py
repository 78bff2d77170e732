"""OneAdapt: gradients of received frames, once a second, counted, and used only when they have arrived."""

from collections.abc import Callable
from typing import Any

import numpy as np

from accmpeg.accgrad.gradient import accuracy_gradient
from accmpeg.accgrad.worker import log2_accgrad
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.evaluation.methods.oneadapt import OneAdapt
from accmpeg.media.decoder import Decoder, encode_still, qp_map
from accmpeg.media.encoder import AccessUnit

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
    session = record(street, OneAdapt(), context, all_keyframes=True)
    plain = record(street, METHODS["aq-1"], context, all_keyframes=True)
    flows = session.flows()
    feedback = [
        (flow.captured_ms, step.size_bytes)
        for flow in flows
        for step in flow.steps
        if step.place == "downlink"
    ]
    # 10 frames/s: of frames 0 and 10, as int8 maps of 23 × 40 that deflate to less.
    assert [captured_ms for captured_ms, _ in feedback] == [0, 1000]
    assert all(50 < size_bytes < 23 * 40 for _, size_bytes in feedback)
    assert bytes_of(flows, "downlink") == sum(size_bytes for _, size_bytes in feedback)
    assert session.stage_ms["server: gradient"] > 0
    for index in (0, 1):
        assert [unit.data for unit in session.sent[index]] == [unit.data for unit in plain.sent[index]]
    added = qps_of(session.sent[2]) - qps_of(plain.sent[2])
    assert np.ptp(added) >= 8
    # The same first map all the second long.
    later = qps_of(session.sent[9]) - qps_of(plain.sent[9])
    assert np.corrcoef(added.ravel(), later.ravel())[0, 1] > 0.9
    # Finer where the true gradients are high, though taken from what was received.
    assert np.corrcoef(true_log2_accgrad(context, street).ravel(), -added.ravel())[0, 1] > 0.5
