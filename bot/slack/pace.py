"""How fast we post: one message a second in a channel, after a short burst, and none while Slack tells us to wait.

Slack allows one `chat.postMessage` a second per channel and tolerates bursts; what goes over is refused (429) or,
worse, shown as left out. A channel's posts take places in a row (a leaky bucket), and each waits for its own. A 429
closes the channel for everybody in this process for as long as Slack says. Updates have a limit of their own (some 50 a
minute) and are only closed. Each replica paces itself; where several post into one channel, Slack's 429 does the rest.

https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

POSTS_PER_SECOND = 1.0
BURST = 8
"""So many messages may follow each other at once, after a quiet time: a card and all that its thread says at first."""

LONGEST_SECONDS = 60.0
MOST_KNOWN = 1_000


class Pace:
    """Places for what is posted. `seconds` is a monotonic clock."""

    def __init__(
        self,
        *,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._full_at: dict[str, float] = {}
        self._closed_until: dict[str, float] = {}

    async def turn(self, channel: str) -> None:
        """Waits for a place among the posts of a channel."""
        now = self._seconds()
        full_at = max(self._full_at.get(channel, now), now)
        if full_at > now + LONGEST_SECONDS:  # nobody waits so long: the clock was set back
            full_at = now
        self._full_at[channel] = full_at + 1 / POSTS_PER_SECOND
        self._forget(now)
        await self._wait(full_at - (BURST - 1) / POSTS_PER_SECOND - now)
        await self.opening(channel)

    async def opening(self, key: str) -> None:
        """Waits as long as Slack told us to: for a channel, or for a method of all channels."""
        seconds = self._closed_until.get(key, 0.0) - self._seconds()
        await self._wait(seconds if seconds <= LONGEST_SECONDS else 0.0)

    def close(self, key: str, seconds: float) -> None:
        """Slack takes nothing here for so long."""
        until = self._seconds() + min(seconds, LONGEST_SECONDS)
        self._closed_until[key] = max(self._closed_until.get(key, 0.0), until)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._sleep(min(seconds, LONGEST_SECONDS))

    def _forget(self, now: float) -> None:
        """Channels that have been quiet need not be remembered."""
        if len(self._full_at) > MOST_KNOWN:
            self._full_at = {channel: at for channel, at in self._full_at.items() if at > now}
            self._closed_until = {key: until for key, until in self._closed_until.items() if until > now}
