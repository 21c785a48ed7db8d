"""How a call gets to an instance: the instance, its key, a place in the call budget, and the client that signs.

A read may be repeated once, with a new nonce and the key that is good then; reading twice changes nothing. What cannot
be called (an unknown instance, no key, no endpoint) is a `CloudRefused` of our own, whose code begins with
``otabrake.``. What it does not do: know any operation, or put answers into the core's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TypeVar

import httpx

from bot.alibaba import codes
from bot.alibaba.answers import NotMade
from bot.alibaba.budget import Budget, CallClass, Reservation
from bot.alibaba.calls import CallWatch
from bot.alibaba.client import AlibabaClient
from bot.alibaba.credentials import Credentials
from bot.alibaba.iot import Iot, Stamp, endpoint_of
from bot.alibaba.key_sources import KeySource
from bot.errors import (
    CloudError,
    CloudLost,
    CloudRefused,
    CloudThrottled,
    CloudUnreachable,
    ConfigurationError,
    StoreUnavailable,
)
from bot.model import Instance
from bot.ports import Purpose
from bot.ports.telemetry import Telemetry, Unheard

READ_SECONDS = 12.0
"""A read, with its wait for a slot and its repetition, ends after so long."""

PATIENT_READ_SECONDS = 60.0
"""The same for one that nobody watches: it may hold half of the slots at most, and every other read goes first."""

ATTEMPT_SECONDS = 5.0
_PATIENT = (Purpose.EXPORT, Purpose.DISCOVERY)
_NONCE_USED = "signaturenonceused"

_Answer = TypeVar("_Answer")


class Access:
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
        self.telemetry = telemetry or Unheard()
        self._instances = instances
        self._keys = keys
        self._http = http
        self._budget = budget
        self.now = now
        self.new_nonce = new_nonce

    def find(self, name: str) -> Instance | None:
        return self._instances.get(name)

    def instance(self, name: str) -> Instance:
        instance = self.find(name)
        if instance is None:
            raise CloudRefused(codes.UNKNOWN_INSTANCE, f"the policy has no instance {name}")
        return instance

    def key_of(self, instance: Instance) -> Credentials:
        """The key that is good now."""
        source = self._keys.get(instance.name)
        if source is None:
            raise CloudRefused(codes.NO_CREDENTIALS, f"there is no access key for instance {instance.name}")
        return source.current()

    def without_key(self) -> tuple[str, ...]:
        """The instances that cannot be called now, because there is no key or it has ended."""
        missing = []
        for name, instance in self._instances.items():
            try:
                self.key_of(instance)
            except CloudRefused:
                missing.append(name)
        return tuple(missing)

    def iot(self, instance: Instance, key: Credentials | None = None, *, watch: CallWatch | None = None) -> Iot:
        """The calls of an instance, signed with `key` or the one that is good now."""
        try:
            endpoint = endpoint_of(instance)
        except ConfigurationError as error:
            raise CloudRefused(codes.BAD_ENDPOINT, error.problems[0]) from error
        client = AlibabaClient(
            self._http,
            endpoint=endpoint,
            credentials=key or self.key_of(instance),
            region=instance.region,
            signature=instance.signature,
        )
        return Iot(
            client,
            instance_id=instance.instance_id,
            new_stamp=lambda: Stamp(self.new_nonce(), self.now()),
            watch=watch,
        )

    def reserve(self, instance: Instance, action: str, call_class: CallClass, *, call_seconds: float) -> Reservation:
        return self._budget.reserve(instance.account, action, call_class, timeout_seconds=call_seconds)

    async def read(
        self,
        name: str,
        action: str,
        purpose: Purpose,
        call: Callable[[Iot], Awaitable[_Answer]],
        *,
        after: Awaitable[None] | None = None,
    ) -> _Answer:
        """One read, repeated once after an answer that says nothing about its object.

        `call` must end after `ATTEMPT_SECONDS`, and is not made before `after` is done.
        """
        instance = self.instance(name)
        loop = asyncio.get_running_loop()
        until = loop.time() + (PATIENT_READ_SECONDS if purpose in _PATIENT else READ_SECONDS)

        async def attempt(after: Awaitable[None] | None = None, *, copy: int = 1) -> _Answer:
            watch = CallWatch(self.telemetry, instance=name, action=action, step=purpose.value, copy=copy)
            iot = self.iot(instance, watch=watch)
            place = self.reserve(instance, action, CallClass[purpose.name], call_seconds=ATTEMPT_SECONDS)
            try:
                if after is not None:
                    await after
                wait_seconds = until - loop.time() - ATTEMPT_SECONDS
                lane = (instance.account, action)
                return await within(place, lambda: call(iot), wait_seconds=wait_seconds, lane=lane, watch=watch)
            finally:
                place.drop()

        try:
            try:
                return await attempt(after)
            except CloudError as error:
                if not _may_pass(error) or until - loop.time() <= ATTEMPT_SECONDS:
                    raise
            return await attempt(copy=2)
        except CloudLost as lost:
            raise CloudLost(lost.why, request_id=lost.request_id, is_read=True) from lost


async def within(
    place: Reservation,
    call: Callable[[], Awaitable[_Answer]],
    *,
    wait_seconds: float,
    lane: tuple[str, str],
    watch: CallWatch,
) -> _Answer:
    """Makes a call in its place in the budget, in a lane (account and operation).

    Raises `NotMade` if the place is not free in time, or if nobody can tell.
    """
    account, action = lane
    watch.begin()
    try:
        async with asyncio.timeout(wait_seconds) as waiting, place:
            waiting.reschedule(None)
            with watch:
                return await call()
    except TimeoutError:
        raise watch.not_made(NotMade(f"account {account} is at its limit of {action} calls a second")) from None
    except StoreUnavailable as error:
        why = f"the database, which counts the calls of account {account}, is away: {error}"
        raise watch.not_made(NotMade(why)) from error


def _may_pass(error: CloudError) -> bool:
    if isinstance(error, CloudThrottled | CloudLost | CloudUnreachable):
        return True
    return isinstance(error, CloudRefused) and error.code.casefold() == _NONCE_USED
