"""A world for the road alone: SQLite, people who are who they say, and a cloud that answers as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import text

from bot.errors import CloudError, CloudRefused
from bot.exchange import Ask, Choice, Click, Delivery, PostKind
from bot.model import (
    OPEN_STATES,
    Actor,
    Counts,
    Firmware,
    Intent,
    Job,
    JobState,
    Notice,
    OutcomeCode,
    Receipt,
    Step,
    StepKind,
    Target,
    Task,
    TaskPage,
    TaskState,
)
from bot.ops import KNOWN
from bot.policy.load import Policy, load
from bot.ports import TASKS_A_PAGE, Person, Purpose
from bot.proposals import Proposal
from bot.storage.database import Database, open_database
from bot.storage.found import SqlFound
from bot.storage.leases import SqlLeases
from bot.storage.migrations import upgrade
from bot.storage.readings import SqlReadings
from bot.storage.store import SqlStore
from bot.workflow.means import Means, Timings
from bot.workflow.road import Road
from tests.conftest import Clock, lapse
from tests.values import TARGET, delivery, intent, job

RULES = """
instances:
  prod-shanghai: {region: cn-shanghai, account: a, channel: C0INCIDENT}
  staging: {region: ap-southeast-1, account: a}
rules:
- {name: read, allow: [reads], who: [anyone]}
- {name: stop, allow: [changes], who: [U0ONCALLA1, U0ONCALLB2], where: {instances: [prod-*]}}
- {name: why, require: {reason: true}, for: [changes], when: {devices: {more_than: 500}}}
- {name: never, deny: [changes], when: {devices: {more_than: 5000}}}
"""


def told(error: CloudError) -> Notice:
    return Notice(f"Because: {error}.", reference=getattr(error, "request_id", None))


@dataclass
class Cloud:
    """Answers what it was told to. `answers` are given to sends in order; then every send is accepted.

    `job` and `counts` are the batch that most tests are about; `others` are more of the same firmware, with their
    counts. `tasks` are those of a batch by its id; a call that names devices or tasks changes them.
    """

    clock: Clock
    job: Job = field(default_factory=job)
    counts: dict[TaskState, int | None] = field(
        default_factory=lambda: dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: 9}
    )
    others: dict[str, tuple[Job, dict[TaskState, int | None]]] = field(default_factory=dict)
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    packages: list[Firmware] = field(default_factory=list)
    answers: list[CloudError] = field(default_factory=list)
    refusals: dict[tuple[StepKind, str], CloudError] = field(default_factory=dict)
    is_obeyed: bool = True
    read_errors: list[CloudError] = field(default_factory=list)
    count_errors: list[CloudError] = field(default_factory=list)
    sent: list[Intent] = field(default_factory=list)
    prepared: int = 0
    has_key: bool = True
    on_send: Callable[[], None] = lambda: None
    on_read: Callable[[], None] = lambda: None

    def _known(self, name: str) -> tuple[Job, dict[TaskState, int | None]]:
        return self.others.get(name, (self.job, self.counts))

    async def fetch_job(
        self, target: Target, *, purpose: Purpose = Purpose.PREVIEW, after: Awaitable[None] | None = None
    ) -> Job:
        if after is not None:
            await after
        self.on_read()
        if self.read_errors:
            raise self.read_errors.pop(0)
        return self._known(target.job)[0]

    async def fetch_counts(
        self, target: Target, states: Sequence[TaskState], *, purpose: Purpose = Purpose.PREVIEW, in_order: bool = False
    ) -> Counts:
        if self.count_errors:
            raise self.count_errors.pop(0)
        counts = self._known(target.job)[1]
        return Counts({state: counts[state] for state in states}, self.clock())

    async def fetch_tasks_of(
        self, target: Target, devices: Sequence[str], *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        if self.count_errors:
            raise self.count_errors.pop(0)
        return tuple(task for task in self.tasks.get(target.job, ()) if task.device in devices)

    async def fetch_task_page(
        self, target: Target, page: int, *, state: TaskState | None = None, purpose: Purpose = Purpose.EXPORT
    ) -> TaskPage:
        found = [task for task in self.tasks.get(target.job, ()) if state in (None, task.state)]
        return TaskPage(tuple(found[(page - 1) * TASKS_A_PAGE : page * TASKS_A_PAGE]), len(found))

    async def fetch_open_tasks(
        self, instance: str, product: str, device: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        every = (task for tasks in self.tasks.values() for task in tasks)
        return tuple(task for task in every if task.device == device and task.state in OPEN_STATES)

    async def fetch_firmware(
        self,
        instance: str,
        *,
        firmware_id: str | None = None,
        product: str | None = None,
        version: str | None = None,
        purpose: Purpose = Purpose.PREVIEW,
    ) -> tuple[Firmware, ...]:
        return tuple(
            each
            for each in self.packages
            if firmware_id in (None, each.firmware_id) and version in (None, each.dest_version)
        )

    async def fetch_jobs_of(
        self, instance: str, firmware_id: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Job, ...]:
        return (self.job, *(each for each, _ in self.others.values()))

    def prepare(self, step: Step) -> Intent:
        if not self.has_key:
            raise CloudRefused("otabrake.NoCredentials", "no key")
        self.prepared += 1
        return intent(
            f"n{self.prepared}-{self.clock().timestamp()}",
            step=step,
            date=self.clock(),
            deadline=self.clock() + timedelta(seconds=10),
        )

    async def send(self, intent: Intent, *, is_held: Callable[[], bool] = lambda: True) -> Receipt:
        self.sent.append(intent)
        self.on_send()
        if self.answers:
            raise self.answers.pop(0)
        if error := self.refusals.get((intent.step.kind, intent.step.target.job)):
            raise error
        self.obey(intent.step)
        return Receipt(f"RID{len(self.sent)}")

    def obey(self, step: Step) -> None:
        job, counts = self._known(step.target.job)
        if step.kind is StepKind.CANCEL_STRATEGY:
            self._set_job(replace(job, state=JobState.CANCELED))
        elif step.kind is StepKind.SET_RATE:
            self._set_job(replace(job, settings=step.settings))
        elif not self.is_obeyed:
            return
        elif step.kind is StepKind.CANCEL_TASKS:
            counts[TaskState.CANCELED] = (counts[TaskState.CANCELED] or 0) + (counts[TaskState.QUEUED] or 0)
            counts[TaskState.QUEUED] = 0
        else:
            self._set_tasks(step)

    def _set_job(self, job: Job) -> None:
        if job.job_id in self.others:
            self.others[job.job_id] = (job, self.others[job.job_id][1])
        else:
            self.job = job

    def _set_tasks(self, step: Step) -> None:
        """What is named by device becomes CANCELED, what is named by id QUEUED again."""
        is_cancel = step.kind is StepKind.CANCEL_DEVICES
        after = TaskState.CANCELED if is_cancel else TaskState.QUEUED
        tasks = self.tasks[step.target.job]
        for place, task in enumerate(tasks):
            is_named = (
                task.device in step.devices and task.state in OPEN_STATES if is_cancel else task.task_id in step.tasks
            )
            if is_named:
                tasks[place] = replace(task, state=after)
                counts = self._known(step.target.job)[1]
                counts[task.state] = max(0, (counts[task.state] or 0) - 1)
                counts[after] = (counts[after] or 0) + 1

    def explain(self, error: Exception, target: Target) -> Notice:
        assert isinstance(error, CloudError)
        return told(error)

    def command_line(self, step: Step) -> str:
        return f"aliyun iot --JobId {step.target.job}"


@dataclass
class Crowd:
    """Everybody is who they say, unless the test says otherwise."""

    clock: Clock
    trouble: Exception | None = None

    async def identify(self, user_id: str, *, max_age_seconds: float) -> Person:
        if self.trouble is not None:
            raise self.trouble
        return Person(Actor(user_id, frozenset(), self.clock()))


class SilentLog:
    def info(self, event: str, **facts: object) -> None:
        """Nobody reads it."""

    error = info


class Quiet:
    def wake(self) -> None:
        """Nobody waits: the tests read what is owed from the store."""


@dataclass
class World:
    clock: Clock
    cloud: Cloud
    crowd: Crowd
    store: SqlStore
    database: Database
    means: Means
    policy: list[Policy | None]
    ids: int = 0

    async def ask(self, verb: str = "job.cancel", **bent: Any) -> Proposal | None:
        """Somebody asks; the proposal that came of it."""
        self.ids += 1
        content = Ask(verb, **({"job": TARGET.job, "reason": "it bricks"} | bent))
        await self.take(delivery(f"ask{self.ids}", content=content, received_at=self.clock()))
        return await self.last()

    async def types(self, content: Any, *, user: str = "U0ONCALLA1") -> Proposal | None:
        """Anything else that somebody sends; the newest proposal afterwards."""
        self.ids += 1
        reply_to = replace(delivery().reply_to, user_id=user)
        await self.take(delivery(f"typed{self.ids}", content=content, reply_to=reply_to, received_at=self.clock()))
        return await self.last()

    async def click(
        self, choice: Choice = Choice.CONFIRM, *, user: str = "U0ONCALLA1", offer_id: str | None = None
    ) -> Proposal:
        self.ids += 1
        waiting = await self.last()
        assert waiting is not None
        assert waiting.offer is not None
        reply_to = replace(delivery().reply_to, user_id=user)
        content = Click(choice, offer_id or waiting.offer.offer_id)
        await self.take(delivery(f"click{self.ids}", content=content, reply_to=reply_to, received_at=self.clock()))
        after = await self.last()
        assert after is not None
        return after

    async def take(self, what: Any) -> None:
        async with Road(self.means) as road:
            assert await road.receive(what)
            await road.drain()

    async def go_on(self) -> Proposal:
        """A new process finds what is to be done in the database."""
        async with Road(self.means) as road:
            await road.sweep_once()
            await road.drain()
        after = await self.last()
        assert after is not None
        return after

    async def last(self) -> Proposal | None:
        statement = text("SELECT proposal_id FROM proposals ORDER BY created_at DESC, proposal_id DESC LIMIT 1")
        found = await self.database.read(lambda connection: connection.scalar(statement))
        return await self.store.fetch_proposal(found) if found else None

    async def found_open(self) -> list[Delivery]:
        """The deliveries that another process would find to answer."""
        await lapse(self.database)
        return [found for _, found in await self.store.claim_deliveries()]

    async def said(self, *kinds: PostKind) -> str:
        owed = [each.post for each in await self.store.fetch_owed()]
        notices = [post.notice for post in owed if post.notice and (not kinds or post.kind in kinds)]
        return "\n".join("\n".join((notice.text, *notice.lines, notice.command or "")) for notice in notices)

    async def keep(self, bent: Proposal) -> None:
        """Puts a proposal into the database as a process that is gone would have left it."""
        from bot.ports import Transition

        assert await self.store.save(Transition(None, bent, ()))


@asynccontextmanager
async def living_world(clock: Clock, url: str) -> AsyncIterator[World]:
    database = open_database(url)
    await upgrade(database)
    store = SqlStore(database, clock=clock)
    cloud, crowd = Cloud(clock), Crowd(clock)
    policy: list[Policy | None] = [load({"p.yaml": RULES.encode()}, operations=KNOWN)]
    ids = iter(f"{number:032x}" for number in range(1, 1000))
    means = Means(
        store=store,
        leases=SqlLeases(database, owner="world"),
        readings=SqlReadings(database, clock=clock),
        found=SqlFound(database),
        reads=cloud,
        changes=cloud,
        words=cloud,
        people=crowd,
        notifier=Quiet(),
        operations=KNOWN,
        policy=lambda: policy[0],
        clock=clock,
        new_id=lambda: next(ids),
        sleep=clock.sleep,
        log=structlog.get_logger(),
        timings=Timings(sweep_seconds=3600),
    )
    yield World(clock, cloud, crowd, store, database, means, policy)
    await database.close()


def outcome(after: Proposal | None) -> OutcomeCode | None:
    return after.outcome.code if after is not None and after.outcome is not None else None
