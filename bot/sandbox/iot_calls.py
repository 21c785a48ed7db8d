"""When the simulated service saw calls arrive: what a budget promises is judged here, not where the calls were sent.

Every signed or unsigned call of an operation that is offered counts, also one that is refused. Times are seconds of a
monotonic clock. Of each operation the latest calls are kept, so a long run doesn't fill memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

KEPT = 20_000


class Calls:
    """The arrivals of each operation, in the order in which they came."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._arrivals: dict[str, deque[float]] = {}

    def note(self, action: str, at: float) -> None:
        self._arrivals.setdefault(action, deque(maxlen=self._kept)).append(at)

    def clear(self) -> None:
        self._arrivals.clear()

    def arrivals(self, action: str) -> tuple[float, ...]:
        """When calls of the operation arrived, the oldest first."""
        return tuple(sorted(self._arrivals.get(action, ())))

    def most_in_a_second(self, action: str, *, seconds: float = 1.0) -> int:
        """The most calls in any sliding second: from a call on, until one second later, that moment not included."""
        most, first = 0, 0
        times = self.arrivals(action)
        for last, at in enumerate(times):
            while at - times[first] >= seconds:
                first += 1
            most = max(most, last + 1 - first)
        return most

    def as_json(self) -> Mapping[str, object]:
        return {
            action: {
                "calls": len(times),
                "most_in_a_second": self.most_in_a_second(action),
                "arrivals": list(self.arrivals(action)),
            }
            for action, times in sorted(self._arrivals.items())
        }
