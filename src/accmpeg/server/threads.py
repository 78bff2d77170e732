"""Work in threads that the end of the program does not wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


async def in_thread(
    function: Callable[Arguments, Found], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Found:
    """Like `asyncio.to_thread`, for what may hang: loading runs code of others.

    The loop's own executor, and Python at its end, would wait for it for ever.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found)  # type: ignore[arg-type]

    def run() -> None:
        found, error = None, None
        try:
            found = function(*arguments, **named)
        except BaseException as problem:
            error = problem
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=run, name=getattr(function, "__name__", "work"), daemon=True).start()
    return await done
