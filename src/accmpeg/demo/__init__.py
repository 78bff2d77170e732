"""The embedded demo: a rendered street with exact labels, and the networks that this project trained on it.

The scene is synthetic. It shows that the loop works from pixels to report on any machine, without footage.
"""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accmpeg.demo.scene import SceneSource

__all__ = ["DEMO_SEED", "assets_path", "demo_scene"]

DEMO_SEED = 87
"""The street of `accmpeg demo`; below 1000, so that nothing was trained on it."""


def assets_path() -> Path:
    """The folder of the demo's own weights and cards."""
    return Path(str(resources.files("accmpeg.demo") / "assets"))


def demo_scene(*, frame_count: int = 300, seed: int = DEMO_SEED) -> "SceneSource":
    """The demo's street at 1280×720 and 30 frames/s.

    Raises `MissingExtraError` where OpenCV is not installed.
    """
    try:
        from accmpeg.demo.scene import SceneSource, SceneSpec
    except ModuleNotFoundError as error:
        from accmpeg.errors import MissingExtraError

        raise MissingExtraError(f"'{error.name}', which draws the demo's scene,", "server") from error
    return SceneSource(SceneSpec(seed, frame_count=frame_count))
