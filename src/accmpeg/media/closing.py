"""What is closed by leaving `with`."""

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """Leaving `with` calls `close`, whatever happened inside."""

    def close(self) -> None:
        """Frees what it holds; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
