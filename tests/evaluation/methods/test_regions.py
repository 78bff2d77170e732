"""What the region methods share: pictures blanked and pasted by macroblock, boxes on the wire."""

import numpy as np

from accmpeg.evaluation.bench.clip import Clip
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
