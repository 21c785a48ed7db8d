"""The stage of a story: the fake Slack, a simulated cloud and the bot between them, on one clock that the story moves.

All three stand behind one server of this machine, so that what is wrong on the wire is really wrong there. The bot may
die and be started again on the same database, while cloud and Slack go on. It judges nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from starlette.applications import Starlette

from bot.charts import Curve
from bot.proposals import Proposal
from bot.sandbox.fleet import Fleet
from bot.sandbox.slack_blocks import buttons
from bot.sandbox.slack_delivery import Answer
from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.workspace import Message
from bot.settings import Settings
from bot.storage import tables
from bot.storage.store import SqlStore
from bot.wiring import App, running
from bot.workflow.means import Timings
from tests.scenarios.wire import Wire
from tests.slots import OpenSlots

CHANNEL = "C0INCIDENT"
BUTTONS = {"confirm": "proposal.confirm", "dismiss": "proposal.dismiss"}
BEGIN = datetime(2026, 3, 1, 3, 12, tzinfo=UTC)
SEED = 7
_DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


class StoryClock:
    """Stands until it is moved; `sleep` moves it and returns at once."""

    def __init__(self) -> None:
        self.at = BEGIN

    def __call__(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return self.at.timestamp()

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)


@dataclass
class Stage:
    """What a story acts on and looks at."""

    clock: StoryClock
    fleet: Fleet
    iot: Starlette
    wire: Wire
    slack: FakeSlack
    settings: Settings
    url: str
    logs: list[MutableMapping[str, Any]]
    timings: Timings
    began_at: datetime = BEGIN
    bot: App | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open_bot(self) -> None:
        """Starts the bot, which goes on with whatever its database says."""
        self.bot = await self._stack.enter_async_context(
            running(
                self.settings,
                clock=self.clock,
                sleep=self.clock.sleep,
                seconds=lambda: self.clock().timestamp(),
                slots=OpenSlots,
                timings=self.timings,
                draw=_dot,  # drawing takes a process and a second; what a curve looks like is no story's matter
            )
        )
        await self.bot.road.sweep_once()
        await self.settled()

    def begin_anew(self, seed: Mapping[str, Any]) -> None:
        """Another fleet, an empty channel and an hour later: for the next scene of a bot that goes on."""
        self.clock.pass_by(3600)
        self.began_at = self.clock()
        fresh = Fleet.from_seed(seed, now=self.clock.seconds, seed=SEED)
        self.fleet.rollouts, self.fleet.history = fresh.rollouts, []
        self.wire.mend()
        self.wire.arrivals.clear()
        self.logs.clear()
        workspace = self.slack.workspace
        for message in [each for channel in workspace.channels for each in self._all_of(channel)]:
            workspace.remove(message)
        for message in [each for user in workspace.people for each in workspace.ephemerals(user)]:
            workspace.remove(message)

    async def close_bot(self) -> None:
        """Ends the bot at once, whatever it is doing."""
        self.bot = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    async def settled(self) -> None:
        """Nothing is under way and nothing is owed; or the bot has died meanwhile."""
        settling = asyncio.ensure_future(self._settle())
        dying = asyncio.ensure_future(self.wire.died.wait())
        await asyncio.wait([settling, dying], return_when=asyncio.FIRST_COMPLETED)
        is_dead = self.wire.died.is_set()
        for each in (settling, dying):
            each.cancel()
        results = await asyncio.gather(settling, dying, return_exceptions=True)
        if is_dead:
            self.wire.died.clear()
            await self.close_bot()
        elif isinstance(results[0], Exception):
            raise results[0]

    async def _settle(self) -> None:
        for _ in range(3):
            if self.bot is not None:
                await self.bot.road.drain()
                await self.bot.notifier.drain()

    # What people do.

    async def types(self, user: str, line: str) -> tuple[Answer, ...]:
        """Somebody types a slash command in the channel of the incident, and all that follows by itself happens."""
        answers = await self.slack.gestures.command(user, CHANNEL, line, respond_at=self._respond_at)
        await self.settled()
        return answers

    async def clicks(self, user: str, message: Message, action: str) -> None:
        await self.slack.gestures.click(
            user, message.channel, message.ts, action_id=action, respond_at=self._respond_at
        )
        await self.settled()

    def _respond_at(self, key: str) -> str:
        return f"{self.url}/response/{key}"

    def with_button(self, action: str, *, user: str) -> Message | None:
        """The newest message with that button which this person sees."""
        seen = [*self.everything(), *self.slack.workspace.ephemerals(user)]
        found = [message for message in seen if action in actions(message)]
        return max(found, key=lambda message: message.ts, default=None)

    # What people see.

    def everything(self) -> tuple[Message, ...]:
        """All that stands in the incident's channel and its threads, the oldest first."""
        workspace = self.slack.workspace
        roots = [message for message in workspace.messages(CHANNEL) if message.thread_ts is None]
        return tuple(message for root in roots for message in workspace.messages(CHANNEL, root.ts))

    def cards(self) -> tuple[Message, ...]:
        return tuple(message for message in self.everything() if message.thread_ts is None)

    def thread(self) -> tuple[Message, ...]:
        """The newest card's thread, without the card."""
        cards = self.cards()
        return self.slack.workspace.messages(CHANNEL, cards[-1].ts)[1:] if cards else ()

    def told(self, user: str) -> str:
        """What one person alone was told, also in direct messages."""
        workspace = self.slack.workspace
        direct = workspace.direct_channel(user, self.slack.app.bot_user)
        said = [*workspace.ephemerals(user), *(workspace.messages(direct.id) if direct is not None else ())]
        return "\n".join(message.text for message in said)

    def files(self) -> dict[str, str]:
        """What was sent as files, by name. Pictures are their type alone."""
        shelf, workspace = self.slack.shelf, self.slack.workspace
        messages = [message for channel in workspace.channels for message in self._all_of(channel)]
        found = {}
        for file in (file for message in messages for file in message.files):
            kept = shelf.shared(file.id)
            assert kept is not None
            is_text = file.mimetype == "text/csv"
            found[file.name] = b"".join(shelf.read(kept)).decode() if is_text else file.mimetype
        return found

    def _all_of(self, channel: str) -> list[Message]:
        roots = self.slack.workspace.messages(channel)
        return [
            message
            for root in roots
            if root.thread_ts is None
            for message in self.slack.workspace.messages(channel, root.ts)
        ]

    def as_seen(self) -> str:
        """Channel, threads and private answers as a person would read them."""
        people = self.slack.workspace.people
        lines = [_as_read(message, people[message.user].handle) for message in self.everything()]
        for person in people.values():
            alone = self.slack.workspace.ephemerals(person.id)
            lines += [f"  (only {person.handle} sees) " + message.text.replace("\n", "\n      ") for message in alone]
        return "\n".join(lines) or "  (nobody said anything)"

    # What is on record.

    async def entries(self) -> list[tuple[str, dict[str, Any]]]:
        """The audit since the scene began, the oldest first: names and facts."""
        audit = tables.entries
        rows = await self._read(select(audit).where(audit.c.at >= self.began_at).order_by(audit.c.entry_id))
        return [(row.name, json.loads(row.body)["facts"]) for row in rows]

    async def proposals(self) -> list[Proposal]:
        """The changes that were asked for since the scene began."""
        asked = tables.proposals
        statement = select(asked.c.proposal_id).where(asked.c.created_at >= self.began_at).order_by(asked.c.created_at)
        rows = await self._read(statement)
        assert self.bot is not None
        store = SqlStore(self.bot.database, clock=self.clock)
        found = [await store.fetch_proposal(row.proposal_id) for row in rows]
        return [proposal for proposal in found if proposal is not None]

    async def _read(self, statement: Any) -> Sequence[Any]:
        assert self.bot is not None, "the story ends while the bot is dead"
        return await self.bot.database.read(lambda connection: connection.execute(statement).all())


async def _dot(curve: Curve) -> bytes:
    """A picture of one dot."""
    return _DOT


def actions(message: Message) -> list[str]:
    return [str(element.get("action_id")) for _, element in buttons(message.blocks)]


def _as_read(message: Message, handle: str) -> str:
    at = datetime.fromtimestamp(float(message.ts), UTC)
    mark = "" if message.thread_ts is None else "  ⇈ " if message.is_broadcast else "    "
    pressed = "".join(f" [{element['text']['text']}]" for _, element in buttons(message.blocks) if "text" in element)
    files = "".join(f" <{file.name}>" for file in message.files)
    text = message.text.replace("\n", "\n          ")
    return f"{mark}{at:%H:%M:%S} {handle}: {text}{pressed}{files}"
