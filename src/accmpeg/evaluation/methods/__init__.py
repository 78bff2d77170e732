"""Every method compared: one file each, one row here."""

from accmpeg.errors import UsageError
from accmpeg.evaluation.methods import (
    adaptive_quantisation,
    binary,
    constant_qp,
    dds,
    detector_boxes,
    eaar,
    graded,
    oneadapt,
    oracle,
    vigil,
)
from accmpeg.evaluation.methods.base import Method, MethodContext, OperatingPoint, StreamFormat

__all__ = ["METHODS", "Method", "MethodContext", "OperatingPoint", "StreamFormat", "find_methods"]

_ALL: tuple[Method, ...] = (
    constant_qp.ConstantQp(),
    constant_qp.ConstantQp(at_input_size=True),
    *(adaptive_quantisation.AdaptiveQuantisation(mode) for mode in (0, 1, 2, 3)),
    *(adaptive_quantisation.AdaptiveQuantisation(mode, at_input_size=True) for mode in (0, 1, 2, 3)),
    dds.Dds(),
    eaar.Eaar(),
    vigil.Vigil(),
    detector_boxes.DetectorBoxes(),
    oneadapt.OneAdapt(),
    binary.Binary(),
    graded.Graded(),
    graded.Graded(at_input_size=True),
    oracle.Oracle("binary"),
    oracle.Oracle("graded"),
    oracle.Oracle("graded", at_input_size=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def find_methods(names: str) -> list[Method]:
    """Methods by comma-separated names, or `all`; raises UsageError for an unknown one."""
    if names == "all":
        return list(METHODS.values())
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in METHODS:
            raise UsageError(f"no method is called {name!r}: choose from {', '.join(METHODS)}, or all")
    return [METHODS[name] for name in wanted]
