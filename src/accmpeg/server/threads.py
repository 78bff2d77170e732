"""Work in threads that the end of the program does not wait for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
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
    done: Future[Found] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(function(*arguments, **named))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=getattr(function, "__name__", "work"), daemon=True).start()
    return await asyncio.wrap_future(done)
