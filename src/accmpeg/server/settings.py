"""What a server is told at its start, checked before anything opens."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from accmpeg.dnn.device import cuda_index
from accmpeg.errors import UsageError
from accmpeg.media.addresses import is_loopback, is_url, scheme_of
from accmpeg.media.inputs import check_readable
from accmpeg.media.patience import Patience
from accmpeg.media.source import ADDRESS_KINDS
from accmpeg.options import Option
from accmpeg.protocol.wire import is_name
from accmpeg.server.broker import BrokerAddress
from accmpeg.server.machine import available_cores
from accmpeg.server.tokens import Tokens

__all__ = ["Limits", "ServerSettings", "parse_input"]

MOST_WORKERS_PER_GPU = 8


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask of the server; beyond it, it is slowed down, refused or cut off."""

    max_connections: Annotated[int, Option("Most connections at once.", min=8)] = 512
    max_connections_per_address: Annotated[
        int, Option("Most connections from one address, such as a proxy's.", min=1)
    ] = 256
    max_cameras: Annotated[int, Option("Most cameras at once.", min=1)] = 64
    max_viewers: Annotated[int, Option("Most subscribers and dashboards at once.", min=1)] = 64
    max_frame_pixels: Annotated[int, Option("Largest frame, in pixels.", min=256)] = 3840 * 2160
    max_pixels_per_s: Annotated[
        float, Option("Most pixels per second of one camera; a faster one is slowed down.", min=256)
    ] = 3840 * 2160 * 60.0
    max_units_per_s: float = 240.0
    handshake_s: float = 10.0
    """For the TLS handshake, then for a whole HTTP request, then for the hello."""
    idle_s: Annotated[float, Option("Cut off a camera that is silent for so long.", min=1)] = 60.0
    send_s: float = 20.0
    """A client that does not read for so long is cut off."""
    header_bytes: int = 16 << 10
    damaged_in_a_row: int = 100
    waiting_units: int = 8
    """Access units of one camera that wait for decoding."""
    waiting_frames: int = 8
    """Decoded frames of one camera that wait for the DNN."""
    standing_s: float = 0.15
    """Where the newest frame wins: an older one may wait for so long while the DNN is behind."""
    burst_s: float = 0.3
    """And for so long while the DNN keeps up: see `Patience`."""
    unanswered: int = 64
    """Frames of one camera that have come and are not answered."""
    subscriber_queue: int = 256

    def patience(self) -> Patience:
        """That of one camera's lane."""
        return Patience(standing_s=self.standing_s, burst_s=self.burst_s)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything that `accmpeg serve` needs. `port` 0 takes any free one.

    `check` raises `UsageError` for what can't be served, or not safely.
    """

    dnns: Annotated[
        tuple[Path, ...],
        Option(
            "Card of a server DNN; may repeat.",
            default="the demo's detector",
            name="dnn",
            metavar="CARD",
        ),
    ] = ()
    site_profile: Annotated[
        Path | None,
        Option("Offer cameras what `accmpeg profile` chose for this site.", metavar="FILE"),
    ] = None
    accmodel: Annotated[
        Path | None, Option("Offer cameras this AccModel: its card or ONNX file.", metavar="FILE")
    ] = None
    host: Annotated[str, Option("Address to listen on; others than loopback need tokens.")] = "127.0.0.1"
    port: Annotated[int, Option("Port; 0 takes a free one.", min=0, max=65535)] = 8700
    tokens: Tokens = field(default_factory=Tokens)
    tls_certificate: Annotated[Path | None, Option("PEM file with the certificate chain.")] = None
    tls_key: Annotated[Path | None, Option("PEM file with the certificate's key.")] = None
    inputs: tuple[tuple[str, str], ...] = ()
    """Names and addresses of streams that the server fetches itself."""
    results: Annotated[
        Path | None, Option("Append every result as a JSON line; - is stdout.", metavar="FILE")
    ] = None
    publish_per_s: Annotated[
        float | None,
        Option(
            "Publish so many results a second of each camera, tracked ones between those of its frames.",
            name="publish_per_second",
            min=1,
            max=120,
        ),
    ] = None
    """None publishes those of the frames that came."""
    mqtt: Annotated[str | None, Option("Publish results to mqtt://host/prefix.", metavar="URL")] = None
    dnn_folder: Annotated[
        Path | None, Option("Cards in here may be loaded while running (PUT /v1/dnns/NAME).")
    ] = None
    """None allows none."""
    threads: Annotated[
        int | None, Option("CPU threads of each copy of a DNN.", min=1, max=1024, default="found out")
    ] = None
    """CPU threads of each copy of a DNN; None: 1 where there are several copies, else all."""
    copies: Annotated[
        int | None,
        Option("Copies of each DNN: so many batches of it run at once.", min=1, max=64, default="found out"),
    ] = None
    """Copies of each DNN, and so the batches of it that run at once. None: one for each core for a DNN that
    is quick on one thread, else a single one."""
    device: Annotated[
        str,
        Option("cpu, cuda, or cuda:N for the GPU of number N; several as cuda:0,cuda:1 share the cameras."),
    ] = "cpu"
    workers: Annotated[int, Option("Batchers on each device, which share the cameras.")] = 1
    max_batch: Annotated[int, Option("Most frames in one batch.", min=1, max=256)] = 8
    batch_window_ms: Annotated[
        float, Option("Longest that a frame waits for others to batch with.", min=0, max=1000)
    ] = 5.0
    infer_timeout_s: Annotated[
        float,
        Option(
            "Seconds after which an inference counts as hanging.",
            name="infer_timeout",
            min=0.1,
            metavar="SECONDS",
        ),
    ] = 10.0
    drain_s: Annotated[float, Option("Longest wait for answers at the end.", min=0)] = 10.0
    snapshots_per_s: Annotated[float, Option("Pictures per second of a watched camera.", min=0.1, max=30)] = (
        5.0
    )
    memory_bytes: Annotated[
        int | None,
        Option(
            "What decoded pictures may take, such as 2G.",
            default="half of what there is",
            name="memory",
            metavar="BYTES",
        ),
    ] = None
    """None: half of the memory that the process may use."""
    forget_s: float = 86_400.0
    """A camera that has been away for so long is forgotten."""
    insecure: Annotated[bool, Option("Let tokens cross the network unencrypted.")] = False
    limits: Limits = field(default_factory=Limits)

    @property
    def devices(self) -> list[str]:
        """Those of `device`. Raises `UsageError` for one that can't be meant."""
        gpus = map(cuda_index, self.device.split(","))
        return ["cpu" if gpu is None else f"cuda:{gpu}" for gpu in gpus]

    @property
    def places(self) -> dict[str, str]:
        """The device of each worker by the worker's name: `cuda:0`, or `cuda:0#1`, `cuda:0#2`."""
        if self.workers == 1:
            return {device: device for device in self.devices}
        return {f"{device}#{n + 1}": device for device in self.devices for n in range(self.workers)}

    @property
    def broker(self) -> BrokerAddress | None:
        """Of `mqtt`."""
        return BrokerAddress.parse(self.mqtt) if self.mqtt is not None else None

    def check(self) -> None:
        if not self.dnns:
            raise UsageError("no server DNN: give at least one card with --dnn CARD")
        if "/" in self.host or self.host.count(":") == 1:
            raise UsageError(f"--host {self.host}: give the address alone, and its port as --port")
        if not is_loopback(self.host) and not self.tokens:
            raise UsageError(
                f"--host {self.host} lets others in, and no token is configured: give --tokens FILE "
                f'(lines such as gate = "…"), or stay on 127.0.0.1'
            )
        if not is_loopback(self.host) and self.tls_certificate is None and not self.insecure:
            raise UsageError(
                f"tokens would cross the network unencrypted to --host {self.host}: give --tls-certificate "
                "and --tls-key, or --insecure where the network itself is encrypted or a proxy speaks TLS"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UsageError("--tls-certificate and --tls-key belong together: give both, or neither")
        devices = self.devices
        if len(set(devices)) < len(devices):
            raise UsageError(
                f"--device {self.device} names a device twice: give each once, and --workers for "
                "several batchers on each"
            )
        most = available_cores() if "cpu" in devices else MOST_WORKERS_PER_GPU
        if not 1 <= self.workers <= most:
            why = f"there are {most} cores" if "cpu" in devices else "more only take the GPU's memory"
            raise UsageError(f"--workers {self.workers} on {self.device}: give 1 to {most}, {why}")
        if self.dnn_folder is not None and not self.dnn_folder.is_dir():
            raise UsageError(f"--dnn-folder {self.dnn_folder} is no folder")
        names = [name for name, _ in self.inputs]
        if len(set(names)) < len(names):
            raise UsageError(f"two --input have the same name: {', '.join(sorted(names))}")
        _ = self.broker  # raises for an address that no broker could have


def parse_input(text: str) -> tuple[str, str]:
    """Name and address from `gate=rtsp://camera/stream`."""
    name, equals, address = text.partition("=")
    address = address.strip()
    if not equals or not address or not is_name(name):
        raise UsageError(
            "--input takes NAME=ADDRESS, such as gate=rtsp://camera/stream (names: letters, digits, _ . -)"
        )
    if is_url(address) and scheme_of(address) not in ADDRESS_KINDS:
        try:
            check_readable(address)
        except UsageError as error:
            raise UsageError(f"--input {name}={error}") from None
    return name, address
