"""What the region methods share: pictures blanked and pasted by macroblock, and no look into the future."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.methods import METHODS, MethodContext, dds
from accmpeg.evaluation.methods.regions import blanked, pasted
from accmpeg.media.frames import plane_view


def test_blanked_and_pasted_pictures_are_exact_and_leave_their_sources_alone(street: Clip) -> None:
    first, second = street.frames[0], street.frames[8]
    before = first.to_ndarray()
    mask = np.zeros((23, 40), np.bool_)
    mask[5:9, 10:20] = mask[22, 39] = True
    grey, mixed = blanked(first, mask), pasted(first, second, mask)
    for plane, side in ((0, 16), (1, 8), (2, 8)):
        height, width = plane_view(first, plane).shape
        inside = mask.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
        below, above = plane_view(first, plane), plane_view(second, plane)
        assert np.array_equal(plane_view(grey, plane), np.where(inside, below, 128))
        assert np.array_equal(plane_view(mixed, plane), np.where(inside, above, below))
    assert (grey.pts, grey.time_base) == (first.pts, first.time_base)
    assert np.array_equal(first.to_ndarray(), before)


@pytest.mark.parametrize("name", ["eaar", "vigil", "detector-boxes", "oneadapt", "dds"])
def test_what_is_sent_does_not_depend_on_later_frames(
    name: str,
    street: Clip,
    context: MethodContext,
    record: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dds, "_CHUNK_FRAMES", 4)
    short = record(street, METHODS[name], context, frames=4)
    longer = record(street, METHODS[name], context, frames=6)
    sent = [
        [unit.data for index in range(4) for unit in session.sent.get(index, [])]
        for session in (short, longer)
    ]
    assert len(sent[0]) >= 4
    assert sent[0] == sent[1]
