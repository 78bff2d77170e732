"""How long a server certificate is valid: an expired one is a warning before cameras stumble over it."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

from accmpeg.errors import UsageError

__all__ = ["certificate_problem", "check_key", "validity"]

_SOON_DAYS = 14
_SEQUENCE, _EXPLICIT_0, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def validity(file: Path) -> tuple[datetime, datetime]:
    """From when to when the first certificate of a PEM file is valid; raises `UsageError`."""
    try:
        text = file.read_text(encoding="latin-1")
        start = text.index(_BEGIN)
        der = ssl.PEM_cert_to_DER_cert(text[start : text.index(_END, start) + len(_END)])
        # RFC 5280: Certificate, TBSCertificate: [version], serial, signature, issuer, validity.
        _, body = _element(_element(der)[1])
        tag, _ = _element(body)
        for _ in range(4 if tag == _EXPLICIT_0 else 3):
            body = _after(body)
        _, dates = _element(body)
        return _time(dates), _time(_after(dates))
    except OSError as error:
        raise UsageError(f"--tls-certificate {file} can't be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"--tls-certificate {file}: there is no certificate in it that can be read, in PEM form"
        ) from error


def check_key(file: Path) -> None:
    """Raises `UsageError` for a file that holds no private key, or one that needs a password."""
    try:
        text = file.read_text(encoding="latin-1")
    except OSError as error:
        raise UsageError(f"--tls-key {file} can't be read: {error.strerror}") from error
    if "PRIVATE KEY-----" not in text:
        raise UsageError(f"--tls-key {file}: there is no private key in it, in PEM form")
    if "ENCRYPTED" in text:
        raise UsageError(
            f"--tls-key {file} is encrypted, and nobody is there to give its password: store it without, by "
            f"`openssl pkey -in {file} -out KEY`, where only the server can read it"
        )


def certificate_problem(file: Path, now: datetime) -> str:
    """What is wrong with the dates of a certificate, or soon will be; empty if nothing is."""
    first, last = validity(file)
    if now > last:
        return f"it expired on {last:%Y-%m-%d}: no camera will trust it; renew it, then reload with SIGHUP"
    if now < first:
        return f"it is not valid before {first:%Y-%m-%d}: check it, and this machine's clock"
    if (last - now).days < _SOON_DAYS:
        return f"it expires on {last:%Y-%m-%d}: renew it, then reload with SIGHUP"
    return ""


def _lengths(data: bytes) -> tuple[int, int]:
    """Where the content of the first DER element begins and ends."""
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise ValueError("cut off")
    return start, start + size


def _element(data: bytes) -> tuple[int, bytes]:
    start, end = _lengths(data)
    return data[0], data[start:end]


def _after(data: bytes) -> bytes:
    return data[_lengths(data)[1] :]


def _time(data: bytes) -> datetime:
    tag, content = _element(data)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    found = datetime.strptime(content.decode("ascii"), form).replace(tzinfo=UTC)
    # RFC 5280: two digits from 50 on are of the 20th century; Python draws the line at 69.
    return found.replace(year=found.year - 100) if tag == _UTC_TIME and found.year >= 2050 else found
