"""One call that the gateway let pass, and how its parameters are read.

What is malformed is refused by the gateway, what is out of bounds by the service: a `GatewayRefusal` or a
`FleetRefusal`. It knows no operation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.model import TaskState
from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import EmptyRows
from bot.sandbox.inventory import Call, FleetRefusal
from bot.sandbox.iot_gateway import COMMON_PARAMS, GatewayRefusal, missing_parameter

Answer = dict[str, Any]

_MOST_ROWS = 100_000
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """`instance_id` is that of the instance which the call means."""

    fleet: Fleet
    params: Mapping[str, str]
    request_id: str
    instance_id: str

    @property
    def call(self) -> Call:
        own = {name: value for name, value in self.params.items() if name not in COMMON_PARAMS}
        return Call(self.instance_id, self.request_id, own)

    def text(self, name: str) -> str:
        return self.params.get(name, "")

    def number(self, name: str, default: int) -> int:
        given = self.params.get(name, "")
        if not given:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", given):
            raise _invalid(name)
        return int(given)

    def flags(self, names: Sequence[str]) -> dict[str, bool]:
        """The flags that were sent. SDKs of some languages write them with a capital letter."""
        flags: dict[str, bool] = {}
        for name in names:
            given = self.params.get(name, "")
            read = given.lower() if self.fleet.habits.accepts_capitals else given
            if given and read not in _FLAGS:
                raise _invalid(name)
            if given:
                flags[name] = _FLAGS[read]
        return flags

    def listed(self, name: str) -> tuple[str, ...]:
        """The values of `Name.1`, `Name.2` …"""
        found = [(key, value) for key, value in self.params.items() if re.fullmatch(rf"{name}\.[0-9]{{1,4}}", key)]
        return tuple(value for _, value in sorted(found, key=lambda pair: int(pair[0].rpartition(".")[2])))

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """The `Key` and `Value` of `Name.1`, `Name.2` … Raises `GatewayRefusal` for half a pair."""
        places = {match[1] for key in self.params if (match := re.fullmatch(rf"{name}\.([0-9]{{1,4}})\.\w+", key))}
        found = []
        for place in sorted(places, key=int):
            for half in ("Key", "Value"):
                if f"{name}.{place}.{half}" not in self.params:
                    raise missing_parameter(f"{name}.{place}.{half}")
            found.append((self.params[f"{name}.{place}.Key"], self.params[f"{name}.{place}.Value"]))
        return tuple(found)

    def task_state(self, given: str, *, among: Sequence[TaskState] = tuple(TaskState)) -> TaskState:
        """Raises `FleetRefusal` for what is not a state, or not one that the operation takes."""
        if given not in among:
            raise FleetRefusal("iot.firmware.InvalidTaskStatus", "The task status is not valid.")
        return TaskState(given)

    def page(self, *, largest: int) -> tuple[int, int]:
        """The page's number and size. Raises `FleetRefusal` outside the documented limits."""
        habits = self.fleet.habits
        current, size = self.number("CurrentPage", 1), self.number("PageSize", habits.default_page_size)
        least = max(1, habits.least_page_size)
        if current < 1 or not least <= size <= largest or current * size > _MOST_ROWS:
            raise FleetRefusal("iot.common.InvalidPageParams", "The page parameters are not valid.")
        return current, size

    def rows(self, outer: str, inner: str, rows: Sequence[Answer]) -> Answer:
        """A list in its two wrappings, and an empty one as this cloud writes it."""
        style = self.fleet.habits.empty_rows
        if not rows and style is EmptyRows.ABSENT:
            return {}
        return {outer: {} if not rows and style is EmptyRows.OBJECT else {inner: list(rows)}}

    def paged(self, outer: str, inner: str, rows: Sequence[Answer], *, page: tuple[int, int], total: int) -> Answer:
        current, size = page
        paging = {"CurrentPage": current, "PageSize": size, "PageCount": -(-total // size), "Total": total}
        return {**paging, **self.rows(outer, inner, rows)}


def _invalid(name: str) -> GatewayRefusal:
    return GatewayRefusal(400, "InvalidParameter", f"Specified parameter {name} is not valid.")
