"""`accmpeg doctor`: what this machine can do, and what to install for what it can't."""

import importlib
import importlib.metadata
import os
import platform
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import typer
from rich.table import Table
from rich.text import Text

from accmpeg.cli.common import AsJson, CaFile, Insecure, out, print_json
from accmpeg.cli.finding import Finding
from accmpeg.version import __version__

__all__ = ["Finding", "doctor", "examine"]


# Module to import, what it is for, and what brings it.
_PARTS = (
    ("onnxruntime", "AccModels and ONNX server DNNs", "pip install accmpeg"),
    ("supervision", "task results and their pictures", "pip install 'accmpeg[server]'"),
    ("cv2", "the demo's scene and pictures", "pip install 'accmpeg[server]'"),
    ("torch", "labels and training", "pip install 'accmpeg[train]'"),
    ("onnx2torch", "gradients of ONNX server DNNs", "pip install 'accmpeg[train]'"),
    ("transformers", "Hugging Face server DNNs", "pip install 'accmpeg[huggingface]'"),
    ("openvino", "AccModels and server DNNs in OpenVINO", "pip install 'accmpeg[openvino]'"),
    ("trackers", "results between frames", "pip install 'accmpeg[tracking]'"),
)
_PACKAGE_OF_MODULE = {"cv2": "opencv-python-headless"}


def doctor(
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Check the way to this server instead: wss://host:8700.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token; or set ACCMPEG_STREAM_TOKEN.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The camera's name, for a token that only it may use.")
    ] = None,
    ca: CaFile = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine can do: codecs, runtimes, GPU; or, with --server, how it reaches a server."""
    if server is not None:
        from accmpeg.camera.uplink.address import ServerAddress, read_token
        from accmpeg.cli.doctor_server import examine_server

        token = read_token(token_file)
        address = ServerAddress.parse(server, token=token, ca_file=ca, insecure=insecure)
        findings = examine_server(address, name)
    else:
        findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
        _exit(server, findings)
        return
    table = Table("part", "state", "detail", "way out", box=None, header_style="bold")
    colours = {"ok": "green", "missing": "yellow", "failed": "red"}
    for finding in findings:
        table.add_row(
            finding.part, Text(finding.state, colours[finding.state]), finding.detail, finding.way_out
        )
    out.print(table)
    _exit(server, findings)


def _exit(server: str | None, findings: list[Finding]) -> None:
    """A server that can't be used is a failure; a part that is not installed is none."""
    if server is not None and any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Looks at everything once; never raises for what is missing."""
    return [
        Finding("accmpeg", "ok", f"{__version__} on Python {platform.python_version()}"),
        Finding("machine", "ok", f"{platform.machine()}, {os.cpu_count()} processors"),
        Finding("PyAV", "ok", f"{av.__version__}, FFmpeg {av.ffmpeg_version_info}"),
        *_encoders(),
        *_parts(),
        _gpu(),
        *_cameras(),
    ]


def _encoders() -> list[Finding]:
    from accmpeg.errors import EncoderError, MapIgnoredError
    from accmpeg.media.codecs import CODECS
    from accmpeg.media.encoder import Encoder, EncoderSettings

    findings = []
    for codec in (row.name for row in CODECS.values() if row.steerable):
        part = f"encoder {codec}"
        settings = EncoderSettings(
            width_px=640, height_px=360, frame_rate=Fraction(30), codec=codec, bitrate_bps=1_000_000
        )
        try:
            Encoder(settings).close()
        except MapIgnoredError as error:
            findings.append(Finding(part, "failed", str(error), "use another PyAV build or --codec libx264"))
        except EncoderError as error:
            findings.append(Finding(part, "missing", str(error), "install PyAV's own wheels: pip install av"))
        else:
            findings.append(Finding(part, "ok", "obeys quality maps (proved just now by encoding)"))
    return findings


def _parts() -> list[Finding]:
    findings = []
    for module, purpose, way_out in _PARTS:
        package = _PACKAGE_OF_MODULE.get(module, module)
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(package, "missing", f"for {purpose}", way_out))
            continue
        findings.append(Finding(package, "ok", f"{version}, for {purpose}"))
    return findings


def _gpu() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return Finding("GPU", "missing", "not looked for: PyTorch is not installed", "a GPU is optional")
    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    return Finding("GPU", "missing", "PyTorch sees none", "optional: training then runs on the CPU")


def _cameras() -> list[Finding]:
    """The V4L2 devices with all that they offer, for `--input-format`, `--input-size` and `--input-rate`."""
    from accmpeg.media.v4l2 import Device, devices

    findings = []
    for found in devices():
        if isinstance(found, Device):
            names = "".join(f", also {name}" for name in found.names)
            offers = "; ".join(map(str, found.modes)) or "it does not say what it offers"
            findings.append(Finding(f"camera {found.path}", "ok", f"{found.card}{names}: {offers}"))
        else:
            path, error = found
            denied = isinstance(error, PermissionError)
            way_out = "add this user to the group 'video'" if denied else "plug it in again"
            said = error.strerror or str(error)
            findings.append(Finding(f"camera {path}", "failed", said, way_out))
    missing = Finding("cameras", "missing", "no device /dev/video*", "optional: addresses and files work too")
    return findings or [missing]
