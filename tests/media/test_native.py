import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from accmpeg.media import native

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the proof reads /proc")


def test_the_pointer_behind_frames_is_found_here():
    assert native.can_attach_side_data()


def test_another_libavutil_in_the_process_does_not_disturb():
    # OpenCV's wheels bring FFmpeg libraries of their own.
    program = "import cv2; from accmpeg.media import native; print(native.can_attach_side_data())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_an_open_codecs_option_can_be_changed():
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 64, "yuv420p", Fraction(1, 25)
    context.bit_rate = 100_000
    context.options = {"maxrate": "100000", "bufsize": "100000"}
    context.open()
    assert native.set_codec_option(context, "maxrate", 250_000)
    assert context.max_bit_rate == 250_000
    assert not native.set_codec_option(context, "no-such-option", 1)


def test_objects_of_another_layout_are_not_touched(monkeypatch):
    assert native._find_pointer([1, 2, 3], lambda read, address: read(address, 8) == b"never!!!") is None


def test_side_data_is_read_without_keeping_the_frame():
    frame = av.VideoFrame(64, 48, "yuv420p")
    assert native.read_side_data(frame, 6) is None
    assert native.attach_side_data(frame, 6, np.arange(9, dtype=np.int32))
    before = sys.getrefcount(frame)
    assert native.read_side_data(frame, 6) == np.arange(9, dtype=np.int32).tobytes()
    assert sys.getrefcount(frame) == before, "PyAV's own side data would refer back to the frame"
