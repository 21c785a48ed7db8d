"""The road's three ports to the cloud (`CloudReads`, `CloudChanges`, `CloudWords`), for every instance of the policy.

Who only reads is given `Reads`, and has nothing to change anything with. A change is sent exactly as its intent says
and never repeated here: the road decides what a lost answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from bot.alibaba import codes
from bot.alibaba.access import Access, within
from bot.alibaba.budget import Budget, CallClass, Reservation
from bot.alibaba.calls import CallWatch
from bot.alibaba.changes import Change, change_of
from bot.alibaba.iot import Iot, Stamp
from bot.alibaba.key_sources import KeySource
from bot.alibaba.reads import Reads
from bot.errors import CloudRefused, LeaseLost
from bot.model import Instance, Intent, Notice, Receipt, Step, Target
from bot.ports.telemetry import Telemetry

CHANGE_SECONDS = 10.0
"""A change call, with its wait for a slot, ends after so long."""

KEPT_SECONDS = 2.0
"""So long after `prepare` its place in the budget is kept for an intent that is being written down."""

_TOO_LATE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What waits for an intent to be sent: calls signed with the key that it names, and a place in the budget."""

    iot: Iot
    place: Reservation
    watch: CallWatch


class Cloud(Reads):
    """Every instance, by name, with the source of its key by the same name. Both mappings may change while this lives.

    `now` gives aware UTC, `new_nonce` a text that was never used before. `telemetry` is told of each call.
    """

    def __init__(
        self,
        instances: Mapping[str, Instance],
        *,
        keys: Mapping[str, KeySource],
        http: httpx.AsyncClient,
        budget: Budget,
        now: Callable[[], datetime],
        new_nonce: Callable[[], str],
        telemetry: Telemetry | None = None,
    ) -> None:
        access = Access(
            instances, keys=keys, http=http, budget=budget, now=now, new_nonce=new_nonce, telemetry=telemetry
        )
        super().__init__(access)
        self._prepared: dict[str, _Prepared] = {}

    def prepare(self, step: Step) -> Intent:
        """Raises `CloudRefused` where the instance, its key or a fact that the call needs is unknown.

        The place in the budget that is asked for here is given back when the task that prepares ends without sending,
        or is not there in time.
        """
        instance = self._access.instance(step.target.instance)
        action = change_of(step).action
        key = self._access.key_of(instance)
        now = self._access.now()
        intent = Intent(
            step,
            self._access.new_nonce(),
            now.astimezone(UTC).replace(microsecond=0),
            key.key_id,
            now + timedelta(seconds=CHANGE_SECONDS),
        )
        watch = self._watch(intent, action)
        iot = self._access.iot(instance, key, watch=watch)
        place = self._access.reserve(instance, action, CallClass.STOP, call_seconds=CHANGE_SECONDS)
        self._keep(intent.nonce, _Prepared(iot, place, watch))
        return intent

    async def send(self, intent: Intent, *, is_held: Callable[[], bool] = lambda: True) -> Receipt:
        """An intent whose deadline is over (one that is sent again) gets the full time once more."""
        prepared = self._prepared.pop(intent.nonce, None)
        try:
            return await self._send(intent, prepared, is_held)
        finally:
            if prepared is not None:
                prepared.place.drop()

    def explain(self, error: Exception, target: Target) -> Notice:
        return codes.explain(error, target, self._access.find(target.instance))

    def without_key(self) -> tuple[str, ...]:
        """The instances that cannot be called now, because there is no key or it has ended."""
        return self._access.without_key()

    def command_line(self, step: Step) -> str:
        return codes.command_line(step, self._access.find(step.target.instance))

    def _watch(self, intent: Intent, action: str) -> CallWatch:
        step = intent.step
        return CallWatch(
            self._access.telemetry,
            instance=step.target.instance,
            action=action,
            step=step.kind.value,
            nonce=intent.nonce,
        )

    def _keep(self, nonce: str, prepared: _Prepared) -> None:
        def give_back(_: object = None) -> None:
            if self._prepared.get(nonce) is prepared:
                del self._prepared[nonce]
                prepared.place.drop()

        self._prepared[nonce] = prepared
        asyncio.get_running_loop().call_later(KEPT_SECONDS, give_back)
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(give_back)

    async def _send(self, intent: Intent, prepared: _Prepared | None, is_held: Callable[[], bool]) -> Receipt:
        instance, change = self._access.instance(intent.step.target.instance), change_of(intent.step)
        left = (intent.deadline - self._access.now()).total_seconds()
        if prepared is not None and left <= 0:
            raise LeaseLost("its time was over before it was sent")
        seconds = left if _TOO_LATE_SECONDS < left <= CHANGE_SECONDS else CHANGE_SECONDS
        prepared = prepared or self._prepared_again(intent, instance, change, seconds)
        iot, stamp = prepared.iot, Stamp(intent.nonce, intent.date)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds

        async def make() -> Receipt:
            if not is_held():
                raise LeaseLost("another process may have sent it")
            # What the wait for a slot took is no longer there for the call.
            return await iot.make(change, stamp=stamp, timeout_seconds=max(_TOO_LATE_SECONDS, until - loop.time()))

        wait_seconds = seconds - _TOO_LATE_SECONDS
        lane = (instance.account, change.action)
        return await within(prepared.place, make, wait_seconds=wait_seconds, lane=lane, watch=prepared.watch)

    def _prepared_again(self, intent: Intent, instance: Instance, change: Change, seconds: float) -> _Prepared:
        """For an intent that was sent before, or prepared by another process: the same bytes need the same key."""
        key = self._access.key_of(instance)
        if key.key_id != intent.key_id:
            raise CloudRefused(codes.KEY_CHANGED, "the access key was changed after the call was signed")
        watch = self._watch(intent, change.action)
        iot = self._access.iot(instance, key, watch=watch)
        place = self._access.reserve(instance, change.action, CallClass.STOP, call_seconds=seconds)
        return _Prepared(iot, place, watch)
