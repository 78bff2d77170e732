"""Who may do what: bearer tokens of cameras, viewers and administrators.

```toml
gate = "…"          # a camera of that name
"*" = "…"           # any camera

[viewers]
desk = "…"          # dashboard, results, metrics

[admins]
ops = "…"           # also changes server DNNs
```

Tokens are compared in constant time and never written anywhere. Browsers, which can't send headers with a
WebSocket, hold a cookie that is derived from the token and worth nothing elsewhere.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from accmpeg.errors import UsageError
from accmpeg.options import read_toml
from accmpeg.protocol.wire import is_name

__all__ = ["ANY_CAMERA", "Role", "Tokens", "bearer_of", "read_tokens"]

ANY_CAMERA = "*"
SHORTEST_TOKEN = 16

Key = TypeVar("Key")
Role = Literal["cameras", "viewers", "admins"]


class Tokens:
    """All tokens of a server; false if there are none, and then everybody may do everything."""

    def __init__(self, tokens: Mapping[Role, Mapping[str, str]] | None = None) -> None:
        self._tokens = {role: dict((tokens or {}).get(role, {})) for role in ("cameras", "viewers", "admins")}
        for role, names in self._tokens.items():
            for name, token in names.items():
                if role == "cameras" and name != ANY_CAMERA and not is_name(name):
                    raise UsageError(
                        f"no camera can be named '{name}', so its token opens nothing: names are up to 64 "
                        "letters, digits, _ . - and begin with a letter or digit"
                    )
                if (
                    len(token) < SHORTEST_TOKEN
                    or not token.isascii()
                    or not token.isprintable()
                    or " " in token
                ):
                    raise UsageError(
                        f"the token of '{name}' ({role}) must have at least {SHORTEST_TOKEN} ASCII "
                        "characters without blanks: make one with `openssl rand -hex 24`"
                    )

    def __bool__(self) -> bool:
        return any(self._tokens.values())

    def __repr__(self) -> str:
        return f"Tokens({', '.join(f'{len(names)} {role}' for role, names in self._tokens.items())})"

    def cameras_of(self, token: str | None) -> frozenset[str]:
        """The cameras that a token may speak for; `*` among them means any. Empty if it is not known."""
        if not self:
            return frozenset({ANY_CAMERA})
        return frozenset(self._matching("cameras", token))

    def may_view(self, token: str | None) -> bool:
        """Whether this token reads results, metrics and pictures: viewers and administrators."""
        return not self or bool(self._matching("viewers", token)) | self.may_administer(token)

    def may_administer(self, token: str | None) -> bool:
        return not self or bool(self._matching("admins", token))

    def cookie_of(self, token: str) -> str:
        """What a browser keeps in place of a viewer's token."""
        return hmac.new(token.encode(), b"accmpeg dashboard cookie", hashlib.sha256).hexdigest()

    def cookie_may_view(self, cookie: str | None) -> bool:
        return not self or self._cookie_is_of(("viewers", "admins"), cookie)

    def cookie_may_administer(self, cookie: str | None) -> bool:
        return not self or self._cookie_is_of(("admins",), cookie)

    def _cookie_is_of(self, roles: tuple[Role, ...], cookie: str | None) -> bool:
        known = [self.cookie_of(token) for role in roles for token in self._tokens[role].values()]
        return _found(cookie, dict(enumerate(known))) != []

    def _matching(self, role: Role, token: str | None) -> list[str]:
        return _found(token, self._tokens[role])


def _found(token: str | None, known: Mapping[Key, str]) -> list[Key]:
    given = (token or "").encode("utf-8", "surrogateescape")
    # Every token is compared, so that the time tells nothing about which one came near.
    return [key for key, value in known.items() if hmac.compare_digest(value.encode(), given)]


def bearer_of(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer TOKEN` header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def read_tokens(
    path: Path | None, cameras: Iterable[str] = (), viewer: str | None = None, admin: str | None = None
) -> Tokens:
    """Tokens from a file and from settings.

    Args:
        path: TOML file with a line `gate = "…"` for each camera, and tables `[viewers]` and `[admins]`.
        cameras: Further ones, `NAME=TOKEN`; the name `*` is any camera.
        viewer: For dashboard, results and metrics.
        admin: May also change server DNNs.

    Raises:
        UsageError: The file can't be read, or holds something else. No token is shown.
    """
    found: dict[Role, dict[str, str]] = {"cameras": {}, "viewers": {}, "admins": {}}
    if path is not None:
        for key, value in read_toml(path, "--tokens").items():
            if isinstance(value, str) and key not in found:
                found["cameras"][key] = value
            elif key in found and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
                found[key] |= value
            else:
                raise UsageError(
                    f'--tokens {path}: {key}: write gate = "token", or tables [viewers] and [admins] of such'
                )
        if not any(found.values()):
            # A file that was cut off must not open the server to everybody.
            raise UsageError(f"--tokens {path}: there is no token in it: write some, or leave --tokens out")
    for text in cameras:
        name, equals, token = text.partition("=")
        if not equals or not name:
            raise UsageError("--token takes NAME=TOKEN")
        found["cameras"][name] = token
    if viewer:
        found["viewers"]["viewer"] = viewer
    if admin:
        found["admins"]["admin"] = admin
    return Tokens(found)
