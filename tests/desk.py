"""The fake Slack on a socket, a database, and the notifier between them; the cloud and the readings are scripted."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from slack_sdk.web.async_client import AsyncWebClient

from bot.charts import Curve
from bot.exchange import Post
from bot.model import Counts, Instance, Notice, Target, Task, TaskPage, TaskState
from bot.ops import KNOWN
from bot.ports import TASKS_A_PAGE, Purpose, Reading, Transition, Watched
from bot.proposals import Offered, Proposal, advance
from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.slack_api import DEFAULT_SCOPES
from bot.sandbox.slack_fake import Fault
from bot.sandbox.workspace import Message, load_workspace
from bot.server import served
from bot.slack.attachments import Attachments
from bot.slack.notifier import SlackNotifier
from bot.storage.database import Database, open_database
from bot.storage.leases import SqlLeases
from bot.storage.migrations import upgrade
from bot.storage.store import SqlStore
from bot.workflow.means import showing
from tests.conftest import Clock

INCIDENT = "C0INCIDENT"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


class Listing:
    """`CloudReads.fetch_task_page` over tasks that are made as they are asked for; errors come first, in order.

    `total` is what the cloud says there are in each state, `a_page` how many it lists on one page.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tasks: dict[TaskState, int] = {}
        self.total: int | None = None
        self.a_page = TASKS_A_PAGE
        self.errors: list[Exception] = []
        self.asked: list[tuple[TaskState | None, int, Purpose]] = []
        self.gate: asyncio.Event | None = None
        self.is_under_way = asyncio.Semaphore(0)
        self.under_way = 0
        self.most_at_once = 0

    async def fetch_task_page(
        self, target: Target, page: int, *, state: TaskState | None = None, purpose: Purpose = Purpose.EXPORT
    ) -> TaskPage:
        self.asked.append((state, page, purpose))
        if self.errors:
            raise self.errors.pop(0)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.is_under_way.release()
        if self.gate is not None:
            await self.gate.wait()
        self.under_way -= 1
        states = [state] if state is not None else list(self.tasks)
        there = [(each, number) for each in states for number in range(self.tasks.get(each, 0))]
        start = (page - 1) * self.a_page
        shown = (_task(target, each, number) for each, number in there[start : start + self.a_page])
        return TaskPage(tuple(shown), len(there) if self.total is None else self.total)

    def explain(self, error: Exception, target: Target) -> Notice:
        return Notice(f"The cloud said {error}.", ("Ask somebody.",), reference="RID-1")


def _task(target: Target, state: TaskState, number: int) -> Task:
    return Task(f"t{number}", f"gw-{state.value.lower()}-{number}", state, target.job, detail="=cmd")


class Seen:
    """`Readings.fetch_readings` from a list."""

    def __init__(self) -> None:
        self.counts: list[Counts] = []
        self.since: datetime | None = None

    async def fetch_readings(
        self, watched: Watched, *, since: datetime, most: int | None = None
    ) -> tuple[Reading, ...]:
        self.since = since
        return tuple(Reading(each, each.read_at) for each in self.counts)


@dataclass
class Desk:
    """Everything that a test of the notifier looks at."""

    slack: FakeSlack
    database: Database
    store: SqlStore
    notifier: SlackNotifier
    clock: Clock
    listing: Listing
    seen: Seen
    instances: dict[str, Instance]
    new_notifier: Callable[[], SlackNotifier]
    drawn: list[Curve] = field(default_factory=list)
    picture: bytes | Exception = PNG
    unshown: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)

    async def keep(self, proposal: Proposal) -> Proposal:
        assert await self.store.save(Transition(None, proposal, ()))
        return proposal

    async def owe(self, *posts: Post) -> None:
        """Owes these posts and waits until nothing is owed any more."""
        await self.store.record(posts=posts)
        await self.notifier.drain()
        assert await self.store.fetch_owed() == ()

    def start_anew(self) -> None:
        """Another process, which knows what the database knows."""
        self.notifier = self.new_notifier()

    def meets(self, method: str, **fault: Any) -> None:
        """The next call of this method goes wrong."""
        self.slack.faults.append(Fault(method=method, **fault))

    def thread(self) -> list[Message]:
        [card] = [one for one in self.slack.workspace.messages(INCIDENT) if one.thread_ts is None]
        return list(self.slack.workspace.messages(INCIDENT, card.ts))

    def lines(self) -> list[str]:
        """What stands in the thread under the card."""
        return [one.text for one in self.thread()[1:]]

    def told(self, user: str = "U0ONCALLA1") -> list[str]:
        return [one.text for one in self.slack.workspace.ephemerals(user)]

    def direct(self) -> list[Message]:
        return list(self.slack.workspace.messages("D0ONCALLA1"))

    def content(self, message: Message) -> bytes:
        kept = self.slack.shelf.shared(message.files[0].id)
        assert kept is not None
        return b"".join(self.slack.shelf.read(kept))

    def rows(self, message: Message) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.content(message).decode("utf-8-sig"), newline="")))

    async def draw(self, curve: Curve) -> bytes:
        self.drawn.append(curve)
        if isinstance(self.picture, Exception):
            raise self.picture
        return self.picture


@contextlib.asynccontextmanager
async def open_desk(clock: Clock, folder: Path, *, scopes: frozenset[str] = DEFAULT_SCOPES) -> AsyncIterator[Desk]:
    app = create_slack_app(
        load_workspace(),
        signing_secret="s",
        bot_token="xoxb-1",
        app_token="xapp-1",
        now=lambda: clock().timestamp(),
        scopes=scopes,
    )
    database = open_database(f"sqlite:///{folder / 'desk.db'}")
    await upgrade(database)
    async with served(app) as port, aiohttp.ClientSession() as session:
        client = AsyncWebClient("xoxb-1", base_url=f"http://127.0.0.1:{port}/api/", session=session, retry_handlers=[])
        yield _desk(clock, app.state.slack, client, session, database)
    await database.close()


def _desk(
    clock: Clock, slack: FakeSlack, client: AsyncWebClient, session: aiohttp.ClientSession, database: Database
) -> Desk:
    store = SqlStore(database, clock=clock)
    listing, seen = Listing(clock), Seen()
    unshown: list[str] = []
    moved: list[str] = []
    instances: dict[str, Instance] = {}

    async def draw(curve: Curve) -> bytes:
        return await desk.draw(curve)

    async def end(proposal_id: str, why: str) -> None:
        unshown.append(f"{proposal_id}: {why}")

    async def move(proposal_id: str) -> None:
        """As the road does: the same preview under another offer, which owes its card and buttons."""
        before = await store.fetch_proposal(proposal_id)
        assert before is not None
        assert before.offer is not None
        moved.append(proposal_id)
        anew = replace(before.offer, offer_id=f"{int(before.offer.offer_id, 16) + 1:032x}")
        await store.save(Transition(before, advance(before, Offered(anew), clock()), (), showing(proposal_id)))

    attachments = Attachments(
        client, session, reads=listing, readings=seen, words=listing, clock=clock, sleep=clock.sleep, draw=draw
    )

    def notifier() -> SlackNotifier:
        return SlackNotifier(
            client,
            session,
            store=store,
            leases=SqlLeases(database, owner="this process"),
            operations=KNOWN,
            attachments=attachments,
            instance=instances.get,
            log=structlog.get_logger(),
            unshown=end,
            moved=move,
            sleep=clock.sleep,
            seconds=lambda: clock().timestamp(),
        )

    desk = Desk(
        slack, database, store, notifier(), clock, listing, seen, instances, notifier, unshown=unshown, moved=moved
    )
    return desk


def titles(messages: Sequence[Message]) -> list[str]:
    return [file.title for message in messages for file in message.files]
