"""A server on a thread of its own, for programs that are not asynchronous: the demo, the tests."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

try:
    import uvloop
except ImportError:  # not made for every platform
    uvloop = None  # type: ignore[assignment]


def new_loop() -> asyncio.AbstractEventLoop:
    """The faster event loop where it exists."""
    return uvloop.new_event_loop() if uvloop else asyncio.new_event_loop()


@contextmanager
def background(serving: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Hold the asynchronous context open on another thread while the block runs; gives what it gives."""
    started: Future[tuple[T, Callable[[], object]]] = Future()

    async def until_told() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serving() as value:
            started.set_result((value, lambda: loop.call_soon_threadsafe(told.set)))
            await told.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(until_told())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    try:
        value, stop = started.result()
        try:
            yield value
        finally:
            stop()
    finally:
        thread.join()
