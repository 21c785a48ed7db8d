"""What a person types, or a script pipes in, read without stopping the event loop.

The reading thread asks the descriptor itself and holds no lock of Python's own streams, so that a process which is
interrupted while it waits for a line can end.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
from typing import Protocol

LINE_BYTES = 4_096


class Keyboard(Protocol):
    """Where lines come from."""

    @property
    def is_terminal(self) -> bool:
        """Whether a person can be asked here."""
        ...

    async def read_line(self) -> str | None:
        """The next line without its end; None if there is none any more."""
        ...


class StandardInput:
    """`Keyboard` on this process's standard input."""

    def __init__(self) -> None:
        self._left = b""
        self._is_over = False

    @property
    def is_terminal(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty()

    async def read_line(self) -> str | None:
        while b"\n" not in self._left and not self._is_over and len(self._left) < LINE_BYTES:
            read = await _in_thread()
            self._is_over = not read
            self._left += read
        line, separator, self._left = self._left.partition(b"\n")
        if not line and not separator:
            return None
        return line.removesuffix(b"\r").decode("utf-8", errors="replace")


async def _in_thread() -> bytes:
    """What can be read now. The thread is nobody's to wait for: at the end of the process it may still read."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def tell(read: bytes) -> None:
        if not answer.done():
            answer.set_result(read)

    def work() -> None:
        read = _read()
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(tell, read)

    threading.Thread(target=work, name="keyboard", daemon=True).start()
    return await answer


def _read() -> bytes:
    if sys.stdin is None:
        return b""
    try:
        return os.read(sys.stdin.fileno(), LINE_BYTES)
    except io.UnsupportedOperation:  # a stream without a descriptor
        return sys.stdin.readline().encode()
    except (OSError, ValueError):  # closed, or a terminal that is not ours any more
        return b""
