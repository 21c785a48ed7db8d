"""How fast the fake Slack takes posts: a burst into each channel, then one in so many seconds; else 429.

Off until it is asked for, so that tests of other things need not wait. Slack's own numbers are not public beyond "one
message a second per channel, short bursts allowed"; limits of the whole workspace are not modelled.
Source: docs.slack.dev "Rate limits" (limits when posting messages).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

POSTING = frozenset({"chat.postMessage"})


@dataclass(slots=True)
class _Channel:
    room: float
    since: float


class PostingPace:
    """`burst` posts into a channel at once, and one more every `seconds`. `refused` counts what was not taken."""

    def __init__(self, *, burst: int, seconds: float, now: Callable[[], float]) -> None:
        self.burst = burst
        self.seconds = seconds
        self.refused = 0
        self._now = now
        self._channels: dict[str, _Channel] = {}

    def retry_after(self, method: str, channel: str) -> int | None:
        """Takes a post (None), or says after how many seconds it may be tried again."""
        if method not in POSTING:
            return None
        now = self._now()
        seen = self._channels.setdefault(channel, _Channel(float(self.burst), now))
        seen.room = min(float(self.burst), seen.room + max(0.0, now - seen.since) / self.seconds)
        seen.since = now
        if seen.room < 1 - 1e-6:
            self.refused += 1
            return max(1, math.ceil((1 - seen.room) * self.seconds))
        seen.room -= 1
        return None
