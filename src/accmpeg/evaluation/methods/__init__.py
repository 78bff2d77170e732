"""Every method compared: one file each, one row here."""

from accmpeg.errors import UsageError
from accmpeg.evaluation.methods import (
    adaptive_quantisation,
    awstream,
    binary,
    cloudseg,
    constant_qp,
    dds,
    detector_boxes,
    eaar,
    glimpse,
    graded,
    oneadapt,
    oracle,
    reducto,
    vigil,
)
from accmpeg.evaluation.methods.base import Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.plugins import find_plugins, load_plugin

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
    awstream.AwStream(),
    glimpse.Glimpse(),
    reducto.Reducto(),
    cloudseg.CloudSeg(),
    binary.Binary(),
    graded.Graded(),
    graded.Graded(at_input_size=True),
    oracle.Oracle("binary"),
    oracle.Oracle("graded"),
    oracle.Oracle("graded", at_input_size=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def find_methods(names: str) -> list[Method]:
    """Methods by comma-separated names, or `all`: this package's and those of plug-ins.

    Plug-ins are loaded only when they are asked for. Raises UsageError for an unknown name or one that two
    methods have, MethodError for a plug-in that can't be loaded.
    """
    plugins = find_plugins(METHODS)
    known = [*METHODS, *plugins]
    wanted = known if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"no method is called {name!r}: choose from {', '.join(known)}, or all")
    return [METHODS[name] if name in METHODS else load_plugin(plugins[name]) for name in wanted]
