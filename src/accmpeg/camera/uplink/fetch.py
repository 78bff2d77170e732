"""What else the server gives, by HTTP beside the stream: same TLS, token and proxy, all bounded."""

import contextlib
import http.client
import socket
import threading
from base64 import b64encode

from accmpeg.camera.uplink.address import ServerAddress, connection_problem
from accmpeg.errors import LinkError, WireError

__all__ = ["fetch", "read"]

_SILENT_S = 10.0
_CHUNK_BYTES = 64 << 10


def fetch(server: ServerAddress, name: str, size_bytes: int, *, within_s: float = 120.0) -> bytes:
    """The file of that name and size, beside the stream's own path.

    Raises LinkError where the server can't be reached or is too slow, WireError for another answer.
    """
    data = read(server, name, size_bytes + 1, within_s=within_s)
    if len(data) != size_bytes:
        more = "more" if len(data) > size_bytes else f"{len(data)}"
        raise WireError(f"{name} has {more} bytes in place of the {size_bytes} that were offered")
    return data


def read(server: ServerAddress, name: str, limit_bytes: int, *, within_s: float) -> bytes:
    """What the server gives by that name, to so many bytes. Redirections are not followed.

    Raises LinkError where the server can't be reached or is too slow, WireError for another answer.
    """
    connection = _connection(server)
    deadline: threading.Timer | None = None
    try:
        connection.connect()
        # A server that sends a byte now and then keeps every time-out of single reads.
        deadline = threading.Timer(within_s, _shut, [connection.sock])
        deadline.daemon = True
        deadline.start()
        headers = {**server.headers(), "Accept-Encoding": "identity"}
        connection.request("GET", server.beside(name), headers=headers)
        answer = connection.getresponse()
        if answer.status in (401, 403):
            raise WireError(server.refused(answer.status))
        if answer.status != 200:
            raise WireError(f"the server answered HTTP {answer.status} to the request for {name}")
        data = bytearray()
        while chunk := answer.read(min(_CHUNK_BYTES, limit_bytes - len(data))):
            data += chunk
    except http.client.HTTPException as error:
        raise LinkError(f"the server broke off or spoke no HTTP: {type(error).__name__}") from error
    except OSError as error:
        raise LinkError(connection_problem(error, server).reason) from error
    finally:
        if deadline is not None:
            deadline.cancel()
        connection.close()
    return bytes(data)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _connection(server: ServerAddress) -> http.client.HTTPConnection:
    """Not connected yet. Raises LinkError for a proxy that this way can't take."""
    proxy = server.proxy()
    host, port = server.host, server.port
    if proxy is not None:
        if proxy.scheme != "http":
            raise LinkError(
                f"only streams go through the proxy {proxy.shown}: go past it with no_proxy={server.host}"
            )
        host, port = proxy.location.host, proxy.location.port or proxy.default_port
    connection: http.client.HTTPConnection
    if (tls := server.tls()) is not None:
        connection = http.client.HTTPSConnection(host, port, timeout=_SILENT_S, context=tls)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_SILENT_S)
    if proxy is not None:
        login = proxy.location
        headers = {}
        if login.user is not None:
            encoded = b64encode(f"{login.user}:{login.password}".encode()).decode()
            headers["Proxy-Authorization"] = f"Basic {encoded}"
        connection.set_tunnel(server.host, server.port, headers)
    return connection
