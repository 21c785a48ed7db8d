"""The key of an instance as the calls see it: `current` gives the one that is good now and never waits.

A key that ends is fetched anew well before it does, in a thread of its own: fetching may block for as long as it likes,
the loop does not. What fails is tried again with growing pauses, and the old key serves until it has really ended.
Where keys come from is not known here. https://www.alibabacloud.com/help/en/ram/product-overview/what-is-sts
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bot.alibaba.credentials import Credentials
from bot.errors import CloudRefused, OtabrakeError

KEY_UNAVAILABLE = "otabrake.KeyUnavailable"
KEY_ENDED = "otabrake.KeyEnded"

FETCH_SECONDS = 20.0
"""A fetch that has said nothing for so long has failed; its thread is left alone, and waited for again."""

_EARLY = timedelta(minutes=15)
_LOOK_AGAIN = timedelta(minutes=5)
_SHORTEST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=60)


class KeySource(Protocol):
    """Where the key of an instance comes from."""

    def current(self) -> Credentials:
        """The key that is good now. Raises `CloudRefused` with a code of our own when there is none (any more)."""
        ...

    async def first(self, timeout_seconds: float = FETCH_SECONDS) -> str | None:
        """Gets the first key, before anybody asks for it. Returns why there is none, if there is none."""
        ...

    async def keep_fresh(self) -> None:
        """Runs for as long as the key is needed."""
        ...


@asynccontextmanager
async def kept_fresh(sources: Iterable[KeySource], *, first_seconds: float = FETCH_SECONDS) -> AsyncIterator[None]:
    """The first keys at once, new ones for as long as this lasts; one that does not come is not waited for."""
    distinct = list({id(source): source for source in sources}.values())
    await asyncio.gather(*(source.first(first_seconds) for source in distinct))
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(source.keep_fresh()) for source in distinct]
        yield
        for task in keeping:
            task.cancel()


class KeyUnavailable(OtabrakeError):
    """A key could not be fetched; the text says why, and holds nothing secret."""


@dataclass(frozen=True, slots=True)
class FetchedKey:
    """A key, and when it ends (None: never, or nobody said)."""

    credentials: Credentials
    ends_at: datetime | None = None


class StaticKey:
    """A key that never changes."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def current(self) -> Credentials:
        return self._credentials

    async def first(self, timeout_seconds: float = FETCH_SECONDS) -> str | None:
        return None

    async def keep_fresh(self) -> None:
        return


class RefreshedKey:
    """A key that `fetch` gets, blocking, from `origin` (words for a sentence). `fetch` may raise `KeyUnavailable`.

    `now` gives aware UTC. `on_trouble` hears each time that a fetch failed why it did.
    """

    def __init__(
        self,
        fetch: Callable[[], FetchedKey],
        *,
        origin: str,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_trouble: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._fetch = fetch
        self._origin = origin
        self._now = now
        self._sleep = sleep
        self._on_trouble = on_trouble
        self._key: FetchedKey | None = None
        self._why = "it has not been fetched yet"
        self._due_at = now()
        self._pause = _SHORTEST_PAUSE
        self._fetching: concurrent.futures.Future[FetchedKey] | None = None

    def current(self) -> Credentials:
        if self._key is None:
            raise CloudRefused(KEY_UNAVAILABLE, f"{self._origin}: {self._why}")
        if self._key.ends_at is not None and self._key.ends_at <= self._now():
            raise CloudRefused(
                KEY_ENDED,
                f"{self._origin}: it ended at {self._key.ends_at:%H:%M} UTC, and no new one came: {self._why}",
            )
        return self._key.credentials

    async def first(self, timeout_seconds: float = FETCH_SECONDS) -> str | None:
        await self._refresh(timeout_seconds)
        return None if self._key is not None else f"{self._origin}: {self._why}"

    async def keep_fresh(self) -> None:
        while True:
            # In short naps: a machine that was suspended must not sleep on past the end of its key.
            while (left := self._due_at - self._now()) > timedelta():
                await self._sleep(min(left, _LONGEST_PAUSE).total_seconds())
            await self._refresh(FETCH_SECONDS)

    async def _refresh(self, timeout_seconds: float) -> None:
        try:
            key = await self._fetched(timeout_seconds)
            if key.ends_at is not None and key.ends_at <= self._now():
                raise KeyUnavailable("the key that came had ended already")
        except KeyUnavailable as error:
            self._why = str(error)
            self._due_at = self._now() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._on_trouble(f"{self._origin}: {self._why}")
            return
        self._key = key
        self._pause = _SHORTEST_PAUSE
        self._due_at = self._now() + self._rest(key)

    def _rest(self, key: FetchedKey) -> timedelta:
        """How long a key may be left alone: until a quarter of an hour before its end, or half of a short life."""
        if key.ends_at is None:
            return _LOOK_AGAIN
        left = key.ends_at - self._now()
        return max(left - _EARLY, left / 2, _SHORTEST_PAUSE)

    async def _fetched(self, timeout_seconds: float) -> FetchedKey:
        """One at a time: a fetch that outlasted its time is not joined by a second one."""
        if self._fetching is None:
            self._fetching = _started(self._fetch)
        fetching = self._fetching
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.wrap_future(fetching)
        except KeyUnavailable:
            raise
        except Exception as error:
            is_late = isinstance(error, TimeoutError) and not fetching.done()
            why = f"no answer within {timeout_seconds:g} s" if is_late else type(error).__name__
            raise KeyUnavailable(why) from None
        finally:
            if fetching.done():
                self._fetching = None


def _started(fetch: Callable[[], FetchedKey]) -> concurrent.futures.Future[FetchedKey]:
    """Runs it in a daemon thread: one that hangs holds up neither the pool that others share nor the process's end."""
    done: concurrent.futures.Future[FetchedKey] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(fetch())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="fetch a key").start()
    return done
