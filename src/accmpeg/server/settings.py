"""What a server is told at its start, checked before anything opens."""

from dataclasses import dataclass, field
from pathlib import Path

from accmpeg.errors import UsageError
from accmpeg.media.addresses import is_loopback, is_url, locate_peer, scheme_of
from accmpeg.media.patience import Patience
from accmpeg.protocol.wire import is_name
from accmpeg.server.broker import BrokerAddress
from accmpeg.server.tokens import Tokens

__all__ = ["Limits", "ServerSettings", "parse_input"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask of the server; beyond it, it is slowed down, refused or cut off."""

    max_connections: int = 512
    max_connections_per_address: int = 256
    max_unproven: int = 128
    """Connections that have not sent a whole request yet; beyond it, the oldest of them go."""
    max_cameras: int = 64
    max_viewers: int = 64
    """Subscribers and dashboards together."""
    max_frame_pixels: int = 3840 * 2160
    max_pixels_per_s: float = 3840 * 2160 * 60.0
    """Decoded pixels of one camera; a faster one is slowed down by not reading it."""
    max_units_per_s: float = 240.0
    handshake_s: float = 10.0
    """For the TLS handshake, then for a whole HTTP request, then for the hello."""
    idle_s: float = 60.0
    """Without a whole message for so long, a camera is cut off."""
    send_s: float = 20.0
    """A client that does not read for so long is cut off."""
    header_bytes: int = 16 << 10
    damaged_in_a_row: int = 100
    waiting_units: int = 8
    """Access units of one camera that wait for decoding."""
    waiting_frames: int = 8
    """Decoded frames of one camera that wait for the DNN."""
    standing_s: float = 0.15
    burst_s: float = 0.3
    """So long one of them is kept beside newer ones, where the newest wins: see `Patience`."""
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

    dnns: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8700
    tokens: Tokens = field(default_factory=Tokens)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    inputs: tuple[tuple[str, str], ...] = ()
    """Names and addresses of streams that the server fetches itself."""
    results: Path | None = None
    mqtt: str | None = None
    dnn_folder: Path | None = None
    """Where cards lie that may be loaded while running; None allows none."""
    threads: int | None = None
    """CPU threads of each copy of a DNN; None: 1 where there are several copies, else all."""
    copies: int | None = None
    """Copies of each DNN, and so the batches of it that run at once. None: one for each core for a DNN that
    is quick on one thread, else a single one."""
    device: str = "cpu"
    max_batch: int = 8
    batch_window_ms: float = 5.0
    """The longest that a frame waits for company."""
    infer_timeout_s: float = 10.0
    """A batch that runs for longer is given up: the DNN hangs."""
    drain_s: float = 10.0
    snapshots_per_s: float = 5.0
    memory_bytes: int | None = None
    """What decoded pictures may take; None: half of the memory that the process may use."""
    forget_s: float = 86_400.0
    """A camera that has been away for so long is forgotten."""
    insecure: bool = False
    """Tokens may cross the network unencrypted."""
    limits: Limits = field(default_factory=Limits)

    @property
    def broker(self) -> BrokerAddress | None:
        """Of `mqtt`."""
        return BrokerAddress.parse(self.mqtt) if self.mqtt is not None else None

    def check(self) -> None:
        if not self.dnns:
            raise UsageError("no server DNN: give at least one card with --dnn CARD")
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
        names = [name for name, _ in self.inputs]
        if len(set(names)) < len(names):
            raise UsageError(f"two --input have the same name: {', '.join(sorted(names))}")
        _ = self.broker  # raises for an address that no broker could have


def parse_input(text: str) -> tuple[str, str]:
    """Name and address from `gate=rtsp://camera/stream`."""
    name, equals, address = text.partition("=")
    if not equals or not address or not is_name(name):
        raise UsageError(
            "--input takes NAME=ADDRESS, such as gate=rtsp://camera/stream (names: letters, digits, _ . -)"
        )
    if is_url(address) and scheme_of(address) != "file":
        try:
            locate_peer(address)
        except UsageError as error:
            raise UsageError(f"--input {name}={error}") from None
    return name, address
