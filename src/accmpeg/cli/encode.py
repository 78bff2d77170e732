"""`accmpeg encode`: a video in, a standard stream steered by an AccModel out."""

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from accmpeg.cli.common import AsJson, err, out, print_json, progress_bar, warn_of, whole
from accmpeg.cli.site import SiteProfile, check_site
from accmpeg.cli.sources import PolicyName, load_accmodel, open_any_source, stream_size
from accmpeg.errors import AccmpegError, EncoderError, SinkError, SourceError, UsageError
from accmpeg.media.codecs import (
    AqMode,
    BFrames,
    CodecName,
    EncoderSettings,
    GopFrames,
    MbtreeFrames,
    Preset,
)
from accmpeg.media.inputs import InputOptions
from accmpeg.options import Option
from accmpeg.steering.encoder import Every, MapStrength

if TYPE_CHECKING:
    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.camera.publish import RemoteSink
    from accmpeg.media.encoder import AccessUnit, Encoder
    from accmpeg.media.sink import Sink
    from accmpeg.media.source import Source
    from accmpeg.steering.encoder import SteeredEncoder

__all__ = ["encode"]


@dataclass(frozen=True)
class Coding:
    """How the stream is coded; of QP, CRF and bitrate one is given, or none."""

    codec: CodecName = "libx264"
    bitrate_bps: Annotated[
        int | None, Option("Rate control to this bitrate, such as 800k or 1.5M.", name="bitrate")
    ] = None
    qp: Annotated[int | None, Option("Exact QP plus the map's offset, no adaptive quantisation.")] = None
    crf: Annotated[
        float | None, Option("Constant rate factor, with adaptive quantisation.", default="26")
    ] = None
    size: Annotated[
        str | None, Option("Stream size if not the source's: 640x360, or 'dnn' for what the DNN sees.")
    ] = None
    preset: Preset = "veryfast"
    gop_frames: GopFrames = 250
    b_frames: BFrames = 0
    mbtree_frames: MbtreeFrames = 0
    aq_mode: AqMode = None

    def settings(self, footage: "Source", model: "AccModel | None") -> EncoderSettings:
        """Of the encoder, for this footage. Raises UsageError."""
        rates = {"--bitrate": self.bitrate_bps, "--qp": self.qp, "--crf": self.crf}
        chosen = [name for name, value in rates.items() if value is not None]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} exclude each other: give one of them")
        width_px, height_px = stream_size(self.size, footage.info, model)
        return EncoderSettings.for_source(
            footage.info,
            width_px=width_px,
            height_px=height_px,
            codec=self.codec,
            qp=self.qp,
            crf=self.crf if chosen else 26.0,
            bitrate_bps=self.bitrate_bps,
            preset=self.preset,
            gop_frames=self.gop_frames,
            b_frames=self.b_frames,
            mbtree_frames=self.mbtree_frames,
            aq_mode=self.aq_mode,
            steerable=model is not None,
        )


def encode(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Video, folder of images, address, device, or 'scene'.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="File (mp4, mkv, ts) or address (rtsp, rtmp, udp).")
    ],
    *,
    accmodel: Annotated[
        Path | None, typer.Option(help="AccModel card or ONNX file; 'scene' brings its own.")
    ] = None,
    policy: Annotated[
        PolicyName,
        typer.Option(help="How scores become QP offsets; none encodes plainly, feedback is stream's alone."),
    ] = PolicyName.GRADED,
    profile: SiteProfile = None,
    coding: Coding,
    every: Every = 10,
    map_strength: MapStrength = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Also write a side-by-side video of scores, offsets and detections.")
    ] = None,
    dnn: Annotated[Path | None, typer.Option(help="Server DNN card, for the overlay's detections.")] = None,
    asked: InputOptions,
    as_json: AsJson = False,
) -> None:
    """Encode a video so that its macroblock quality follows the server DNN's accuracy."""
    from accmpeg.media.addresses import describe
    from accmpeg.steering.encoder import StageTimes, SteeredEncoder

    if dnn is not None and overlay is None:
        raise UsageError("--dnn only serves --overlay: give both, or neither")
    if policy is PolicyName.FEEDBACK:
        raise UsageError("--policy feedback follows a server's answers, which only accmpeg stream gets")
    if profile is not None and (coding.bitrate_bps is not None or coding.qp is not None):
        coding = replace(coding, crf=None)  # which is the profile's
    _check_names(source, output, overlay)
    times = StageTimes()
    model = load_accmodel(accmodel, policy, source)
    if model is not None:
        warn_of(model.card)
    with open_any_source(source, asked) as footage:
        check_site(profile, footage.info, accmodel=None if model is None else model.card)
        settings = coding.settings(footage, model)
        try:
            opened = SteeredEncoder(
                settings, model, policy.value, every=every, strength=map_strength, times=times
            )
        except EncoderError as error:  # at open, what it refuses are the options
            raise UsageError(str(error)) from error
        remarks = [*footage.info.remarks, *_shape_lost(settings)]
        for remark in remarks:
            err.print(f"{footage.info.name}: {remark}", style="yellow", soft_wrap=True)
        done = _Done()
        ended: AccmpegError | KeyboardInterrupt | None = None
        with opened as steered:
            started = time.monotonic()
            try:
                with (
                    _open_output(output, steered.encoder) as sink,
                    _overlay_writer(overlay, dnn, settings) as watcher,
                ):
                    _run(footage, steered, sink, watcher, limit, done)
            except (AccmpegError, KeyboardInterrupt) as error:
                ended = error
                if not done.written:
                    raise
            elapsed_s = time.monotonic() - started
        summary = _summary(done, elapsed_s, footage, times) | {"remarks": remarks}
    output = describe(output)
    if as_json:
        reason = "interrupted" if isinstance(ended, KeyboardInterrupt) else ended and str(ended)
        print_json({"output": output, "policy": policy.value, **summary, "ended": reason})
    else:
        _print(output, summary)
    if isinstance(ended, KeyboardInterrupt | SinkError):  # a sink says itself what is left
        raise ended
    if ended is not None:
        raise AccmpegError(f"{ended}: {output} is finished and holds the {done.written} frames before that")


def _check_names(source: str, output: str, overlay: Path | None) -> None:
    """Nothing may be written over the footage, nor the overlay over the stream."""
    named = {"INPUT": Path(source), "--output": Path(output)}
    if overlay is not None:
        named["--overlay"] = overlay
    seen: dict[Path, str] = {}
    for option, path in named.items():
        if (before := seen.setdefault(path.resolve(), option)) != option:
            raise UsageError(f"{before} and {option} are the same, {path}: give another name")


def _open_output(output: str, encoder: "Encoder") -> "Sink | RemoteSink":
    """A network address is written by a process of its own: a peer that accepts and never answers would hold
    libav up for ever, and with it Ctrl-C."""
    from accmpeg.camera.publish import RemoteSink
    from accmpeg.media.addresses import is_url
    from accmpeg.media.sink import open_sink

    return RemoteSink(output, encoder) if is_url(output) else open_sink(output, encoder)


def _shape_lost(settings: EncoderSettings) -> list[str]:
    """A remark where pixels that are not square go into a bitstream that can't say so."""
    if settings.pixel_aspect == 1 or settings.codec in ("libx264", "libx265"):
        return []
    width_px = 2 * round(settings.width_px * settings.pixel_aspect / 2)
    return [
        f"its pixels are {settings.pixel_aspect} as wide as high, which {settings.codec} can't say: "
        f"--size {width_px}x{settings.height_px} makes them square"
    ]


@dataclass
class _Done:
    """What has been encoded and written so far. `end_s`: where the last frame ends, in the stream's time."""

    frames: int = 0
    written: int = 0
    size_bytes: int = 0
    end_s: float = 0.0


def _run(
    footage: "Source", steered: "SteeredEncoder", sink: Any, watcher: Any, limit: int | None, done: _Done
) -> None:
    """Encodes until the end, or to the failure that it raises; what came before that is written."""
    try:
        _encode_frames(footage, steered, sink, watcher, limit, done)
    except SinkError:
        raise
    except (AccmpegError, KeyboardInterrupt):
        with suppress(AccmpegError):
            _write(steered.flush(), sink, done)
        raise
    _write(steered.flush(), sink, done)


def _encode_frames(
    footage: "Source", steered: "SteeredEncoder", sink: Any, watcher: Any, limit: int | None, done: _Done
) -> None:
    info = footage.info
    iterator = iter(footage)
    with progress_bar() as progress:
        task = progress.add_task("encoding", total=limit or info.frame_count)
        while limit is None or done.frames < limit:
            with steered.times.measure("read"):
                frame = next(iterator, None)
            if frame is None:
                if info.is_live:
                    raise SourceError(f"{info.name} ended: the sender closed the stream")
                return
            with whole():  # a frame that is coded is written, and counted
                units = steered.encode(frame)
                done.frames += 1
                if frame.pts is not None and frame.time_base is not None:
                    done.end_s = float(frame.pts * frame.time_base + 1 / info.frame_rate)
                with steered.times.measure("write"):
                    _write(units, sink, done)
                if watcher is not None:
                    watcher.add(frame, units, steered)
            progress.advance(task)


def _write(units: "list[AccessUnit]", sink: Any, done: _Done) -> None:
    for unit in units:
        sink.write(unit)
        done.written += 1
        done.size_bytes += unit.size_bytes


def _overlay_writer(path: Path | None, dnn: Path | None, settings: EncoderSettings) -> Any:
    if path is None:
        return nullcontext()
    from accmpeg.cli.overlay import OverlayWriter

    return OverlayWriter(path, dnn, settings)


def _summary(done: _Done, elapsed_s: float, footage: "Source", times: Any) -> dict[str, Any]:
    return {
        "frames": done.written,
        "skipped_frames": footage.skipped_frames,
        "bytes": done.size_bytes,
        "seconds": round(done.end_s, 3),
        "bitrate_kbps": round(done.size_bytes * 8 / done.end_s / 1000, 1) if done.end_s else 0.0,
        "frames_per_s": round(done.frames / elapsed_s, 1) if elapsed_s else 0.0,
        "cpu_ms_per_frame": {stage: round(ms, 3) for stage, ms in times.per_frame_ms(done.frames).items()},
    }


def _print(output: str, summary: dict[str, Any]) -> None:
    out.print(
        f"{output}: {summary['frames']} frames, {summary['bytes']:,} bytes, "
        f"{summary['bitrate_kbps']} kbit/s, {summary['frames_per_s']} frames/s",
        soft_wrap=True,
    )
    table = Table("stage", "CPU ms per frame", box=None, header_style="bold")
    for stage, ms in summary["cpu_ms_per_frame"].items():
        table.add_row(stage, f"{ms:.3f}")
    table.add_row("all", f"{sum(summary['cpu_ms_per_frame'].values()):.3f}")
    out.print(table)
    if summary["skipped_frames"]:
        err.print(
            f"damaged frames of the input that were passed over: {summary['skipped_frames']}", style="yellow"
        )
