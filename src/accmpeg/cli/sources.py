"""Addresses that verbs accept: those of `media.source`, and the embedded scene."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accmpeg.media.source import Source

__all__ = ["EMBEDDED_SCENE", "open_any_source"]

EMBEDDED_SCENE = "scene"


def open_any_source(address: str) -> "Source":
    """Opens a file, folder, address or device, or the embedded scene by the name `scene`.

    Raises SourceError for what can't be opened.
    """
    if address == EMBEDDED_SCENE:
        from accmpeg.demo import demo_scene

        return demo_scene()
    from accmpeg.media.source import open_source

    return open_source(address)
