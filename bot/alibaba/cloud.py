"""The road's three ports to the cloud (`CloudReads`, `CloudChanges`, `CloudWords`), for every instance of the policy.

Reads may be repeated once, with a new nonce; a change is sent exactly as its intent says and never repeated here: the
road decides what a lost answer means. What cannot be called (an unknown instance, no key) is a `CloudRefused` of our
own, whose code begins with ``otabrake.``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx

from bot.alibaba import codes
from bot.alibaba.budget import Budget, CallClass
from bot.alibaba.client import AlibabaClient
from bot.alibaba.credentials import Credentials
from bot.alibaba.iot import Iot, Stamp, endpoint_of, touched
from bot.alibaba.records import OtaJob
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable, ConfigurationError
from bot.model import (
    Counts,
    Instance,
    Intent,
    Job,
    JobKind,
    JobState,
    Notice,
    Receipt,
    Step,
    StepKind,
    Target,
    TaskState,
)
from bot.ports import Purpose

CHANGE_SECONDS = 10.0
"""A change call, with its wait for a slot, ends after so long."""

READ_SECONDS = 12.0
"""A read, with its wait for a slot and its repetition, ends after so long."""

_READ_ATTEMPT_SECONDS = 5.0
_TOO_LATE_SECONDS = 1.0
_NONCE_USED = "signaturenonceused"
_ACTIONS = {StepKind.CANCEL_TASKS: "CancelOTATaskByJob", StepKind.CANCEL_STRATEGY: "CancelOTAStrategyByJob"}

_Answer = TypeVar("_Answer")


class Cloud:
    """Every instance, by name, with its `credentials` by the same name. Both mappings may change while this lives.

    `now` gives aware UTC, `new_nonce` a text that was never used before.
    """

    def __init__(
        self,
        instances: Mapping[str, Instance],
        *,
        credentials: Mapping[str, Credentials],
        http: httpx.AsyncClient,
        budget: Budget,
        now: Callable[[], datetime],
        new_nonce: Callable[[], str],
    ) -> None:
        self._instances = instances
        self._credentials = credentials
        self._http = http
        self._budget = budget
        self._now = now
        self._new_nonce = new_nonce

    async def fetch_job(self, target: Target, *, purpose: Purpose = Purpose.PREVIEW) -> Job:
        async def query(iot: Iot) -> OtaJob:
            return await iot.query_ota_job(job_id=target.job, timeout_seconds=_READ_ATTEMPT_SECONDS)

        return _job_of(await self._read(target.instance, "QueryOTAJob", CallClass[purpose.name], query))

    async def fetch_counts(
        self,
        target: Target,
        states: Sequence[TaskState],
        *,
        purpose: Purpose = Purpose.PREVIEW,
        in_order: bool = False,
    ) -> Counts:
        call_class = CallClass[purpose.name]
        if in_order:
            found = [await self._count_or_error(target, state, call_class) for state in states]
        else:
            found = await asyncio.gather(*(self._count_or_error(target, state, call_class) for state in states))
        by_state = {
            state: None if isinstance(each, CloudError) else each for state, each in zip(states, found, strict=True)
        }
        errors = [each for each in found if isinstance(each, CloudError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        return Counts(by_state, self._now())

    def prepare(self, step: Step) -> Intent:
        """Raises `CloudRefused` where the instance or its key is unknown."""
        now = self._now().astimezone(UTC).replace(microsecond=0)
        key = self._credentials_of(self._instance(step.target.instance))
        return Intent(step, self._new_nonce(), now, key.key_id, self._now() + timedelta(seconds=CHANGE_SECONDS))

    async def send(self, intent: Intent) -> Receipt:
        """An intent whose deadline is over (one that is sent again) gets the full time once more."""
        step = intent.step
        instance = self._instance(step.target.instance)
        if self._credentials_of(instance).key_id != intent.key_id:
            raise CloudRefused(codes.KEY_CHANGED, "the access key was changed after the call was signed")
        left = (intent.deadline - self._now()).total_seconds()
        seconds = left if _TOO_LATE_SECONDS < left <= CHANGE_SECONDS else CHANGE_SECONDS
        iot, stamp = self._iot(instance), Stamp(intent.nonce, intent.date)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        action = _ACTIONS[step.kind]

        async def change() -> Receipt:
            # What the wait for a slot took is no longer there for the call.
            left = max(_TOO_LATE_SECONDS, until - loop.time())
            if step.kind is StepKind.CANCEL_STRATEGY:
                return await iot.cancel_ota_strategy_by_job(job_id=step.target.job, stamp=stamp, timeout_seconds=left)
            return await iot.cancel_ota_task_by_job(
                job_id=step.target.job, **touched(step.touches), stamp=stamp, timeout_seconds=left
            )

        return await self._within_slot(
            instance, action, CallClass.STOP, change, wait_seconds=seconds - _TOO_LATE_SECONDS, call_seconds=seconds
        )

    def explain(self, error: Exception, target: Target) -> Notice:
        return codes.explain(error, target, self._instances.get(target.instance))

    def command_line(self, step: Step) -> str:
        return codes.command_line(step, self._instances.get(step.target.instance))

    async def _count_or_error(self, target: Target, state: TaskState, call_class: CallClass) -> int | CloudError:
        async def count(iot: Iot) -> int:
            page = await iot.list_ota_task_by_job(
                job_id=target.job, status=state.value, page_size=1, timeout_seconds=_READ_ATTEMPT_SECONDS
            )
            if page.total is None:
                raise CloudLost("the answer holds no total")
            return page.total

        try:
            return await self._read(target.instance, "ListOTATaskByJob", call_class, count)
        except CloudError as error:
            return error

    async def _read(
        self, name: str, action: str, call_class: CallClass, read: Callable[[Iot], Awaitable[_Answer]]
    ) -> _Answer:
        """One read, repeated once after an answer that says nothing about its object. Reading twice changes nothing."""
        instance = self._instance(name)
        iot = self._iot(instance)
        loop = asyncio.get_running_loop()
        until = loop.time() + READ_SECONDS

        async def attempt() -> _Answer:
            return await self._within_slot(
                instance,
                action,
                call_class,
                lambda: read(iot),
                wait_seconds=until - loop.time() - _READ_ATTEMPT_SECONDS,
                call_seconds=_READ_ATTEMPT_SECONDS,
            )

        try:
            return await attempt()
        except CloudError as error:
            if not _may_pass(error) or until - loop.time() <= _READ_ATTEMPT_SECONDS:
                raise
        return await attempt()

    async def _within_slot(
        self,
        instance: Instance,
        action: str,
        call_class: CallClass,
        call: Callable[[], Awaitable[_Answer]],
        *,
        wait_seconds: float,
        call_seconds: float,
    ) -> _Answer:
        """Makes a call within the account's budget. Raises `CloudUnreachable` if no slot came free in time."""
        try:
            async with asyncio.timeout(wait_seconds) as waiting:
                async with self._budget.slot(instance.account, action, call_class, timeout_seconds=call_seconds):
                    waiting.reschedule(None)
                    return await call()
        except TimeoutError:
            raise CloudUnreachable(
                f"account {instance.account} is at its limit of {action} calls a second; nothing was sent"
            ) from None

    def _instance(self, name: str) -> Instance:
        instance = self._instances.get(name)
        if instance is None:
            raise CloudRefused(codes.UNKNOWN_INSTANCE, f"the policy has no instance {name}")
        return instance

    def _credentials_of(self, instance: Instance) -> Credentials:
        credentials = self._credentials.get(instance.name)
        if credentials is None:
            raise CloudRefused(codes.NO_CREDENTIALS, f"there is no access key for instance {instance.name}")
        return credentials

    def _iot(self, instance: Instance) -> Iot:
        try:
            endpoint = endpoint_of(instance)
        except ConfigurationError as error:
            raise CloudRefused(codes.BAD_ENDPOINT, error.problems[0]) from error
        client = AlibabaClient(
            self._http,
            endpoint=endpoint,
            credentials=self._credentials_of(instance),
            region=instance.region,
            signature=instance.signature,
        )
        return Iot(client, instance_id=instance.instance_id, new_stamp=lambda: Stamp(self._new_nonce(), self._now()))


def _may_pass(error: CloudError) -> bool:
    if isinstance(error, CloudThrottled | CloudLost | CloudUnreachable):
        return True
    return isinstance(error, CloudRefused) and error.code.casefold() == _NONCE_USED


def _job_of(job: OtaJob) -> Job:
    try:
        state = JobState(job.status)
    except ValueError:
        raise CloudLost(f"the answer holds a job status that is not known: {job.status or 'none'}") from None
    return Job(
        job_id=job.job_id,
        state=state,
        kind=_kind_of(job),
        firmware_id=job.firmware_id,
        firmware=job.name,
        product=job.product_key,
        dest_version=job.dest_version,
        src_versions=job.src_versions,
        description=job.description,
    )


def _kind_of(job: OtaJob) -> JobKind:
    if job.selection_type == "DYNAMIC":
        return JobKind.DYNAMIC
    if job.job_type == "VERIFY_FIRMWARE":
        return JobKind.VERIFICATION
    return JobKind.SCHEDULED if job.scheduled_at else JobKind.STATIC
