"""Every method compared: declared rows, from one file for each system."""

from accmpeg.errors import UsageError, did_you_mean
from accmpeg.evaluation.methods import (
    adaptive_quantisation,
    awstream,
    binary,
    cloudseg,
    constant_qp,
    dds,
    detector_boxes,
    eaar,
    feedback_boxes,
    glimpse,
    graded,
    oneadapt,
    reducto,
    true_gradients,
    vigil,
)
from accmpeg.evaluation.methods.base import Family, Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.plugins import GROUPS, find_plugins, load_plugin
from accmpeg.evaluation.methods.whole_stream import PREFIX, whole_stream

__all__ = [
    "BASELINES",
    "METHODS",
    "PRIMARY",
    "Family",
    "Method",
    "MethodContext",
    "OperatingPoint",
    "StreamFormat",
    "find_methods",
]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *constant_qp.ROWS,
        *adaptive_quantisation.ROWS,
        *dds.ROWS,
        *eaar.ROWS,
        *vigil.ROWS,
        *detector_boxes.ROWS,
        *oneadapt.ROWS,
        *awstream.ROWS,
        *glimpse.ROWS,
        *reducto.ROWS,
        *cloudseg.ROWS,
        *binary.ROWS,
        *graded.ROWS,
        *feedback_boxes.ROWS,
        *true_gradients.ROWS,
    )
}
"""This package's own, by name, in the order of tables."""

PRIMARY = (
    "aq-1",
    "aq-1@dnn",
    "aq-0@dnn",
    "b2@dnn",
    "constant-qp",
    "graded@dnn",
    "b2-graded@dnn",
    "b2-feedback@dnn",
)
"""What a sweep measures where nothing else is asked for."""

BASELINES = ("aq-1", "aq-1@dnn", "aq-0@dnn", "b2@dnn", "constant-qp")
"""Fixed beforehand: what every method is compared with."""


def find_methods(names: str) -> list[Method]:
    """Methods by name: this package's, those of plug-ins, and whole streams (see `whole_stream`).

    Plug-ins are loaded only when they are asked for.

    Args:
        names: Separated by commas; `primary` and `all` are groups, `stream:640x360+b2` is a whole stream.

    Raises:
        UsageError: A name is unknown, or two methods have it.
        MethodError: A plug-in can't be loaded.
    """
    plugins = find_plugins(METHODS)
    known = [*METHODS, *plugins]
    groups = dict(zip(GROUPS, (PRIMARY, known), strict=True))
    wanted: dict[str, None] = {}
    for name in (name.strip() for name in names.split(",")):
        if name:
            wanted |= dict.fromkeys(groups.get(name, (name,)))
    found = []
    for name in wanted:
        if name.startswith(PREFIX):
            found.append(whole_stream(name))
        elif name not in known:
            raise UsageError(f"no method is called '{name}': {did_you_mean(name, [*known, *GROUPS])}")
        else:
            found.append(METHODS[name] if name in METHODS else load_plugin(plugins[name]))
    return found
