"""What outlives the bot: the fake Slack and the IoT simulator, over HTTP on this machine, in the test's own process.

It keeps what checks need: which copy of which call arrived (by its nonce), how many messages with live buttons an offer
ever had at once, and how each command and click was acknowledged. People's gestures go to the replica that the test
names, as a load balancer would choose one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.sandbox.fleet import Fleet
from bot.sandbox.inventory import Effect
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.iot_faults import Faults
from bot.sandbox.server import APP_TOKEN, BOT_TOKEN, SEED, SIGNING_SECRET, sandbox_settings
from bot.sandbox.slack import create_slack_app
from bot.sandbox.slack_blocks import buttons
from bot.sandbox.slack_delivery import Answer
from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.workspace import Message as SlackMessage
from bot.sandbox.workspace import Person, Workspace
from bot.server import served

CHANGES = ("CancelOTATaskByJob", "CancelOTAStrategyByJob", "ReupgradeOTATask")
CALL_SECONDS = (0.035, 0.045)

POST_SECONDS = (0.0, 0.025)
CHANNEL = "C0INCIDENT"
ONCALL, RELEASE = "S0614TZR7", "U0RELEASE1"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One copy of one call, as it came to the simulator; times are seconds since 1970."""

    action: str
    nonce: str
    request_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Deed:
    """One gesture of a person, the `response_url` it came with, and what the app answered."""

    user: str
    is_command: bool
    address: str
    answer: Answer

    @property
    def is_taken(self) -> bool:
        """Acknowledged without a word: it must have been written down."""
        return self.answer.error is None and not self.answer.body.strip()


class WatchedWorkspace(Workspace):
    """Knows for each offer how many messages had its live buttons at the same time."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.most_live: dict[str, int] = defaultdict(int)
        self._live: dict[str, set[tuple[str, str]]] = defaultdict(set)

    def say(self, message: SlackMessage) -> SlackMessage:
        self._note(message)
        return super().say(message)

    def change(self, message: SlackMessage, **changes: Any) -> SlackMessage:
        changed = super().change(message, **changes)
        self._note(changed)
        return changed

    def live_buttons(self) -> dict[str, set[tuple[str, str]]]:
        """The messages (channel, ts) with buttons, by the offer that these carry."""
        return {offer: set(places) for offer, places in self._live.items() if places}

    def _note(self, message: SlackMessage) -> None:
        place, offers = (message.channel, message.ts), offers_on(message)
        for offer in {*offers, *self._live}:
            (self._live[offer].add if offer in offers else self._live[offer].discard)(place)
        for offer in offers:
            self.most_live[offer] = max(self.most_live[offer], len(self._live[offer]))


def offers_on(message: SlackMessage) -> set[str]:
    """The offers that this message has buttons for."""
    return {str(one.get("value")) for _, one in buttons(message.blocks) if str(one.get("action_id")).startswith("prop")}


_call: ContextVar[tuple[str, str]] = ContextVar("call", default=("", ""))


@dataclass(slots=True)
class World:
    """Slack and the cloud. `settings` are the environment of a bot between them."""

    fleet: Fleet
    slack: FakeSlack
    workspace: WatchedWorkspace
    faults: Faults
    settings: dict[str, str]
    slack_url: str
    arrivals: list[Arrival]
    """Copies of calls, in the order in which they came."""

    deeds: list[Deed] = field(default_factory=list)

    async def types(self, at: str, user: str, text: str) -> Deed:
        """Somebody types `/ota …`; the replica at URL `at` gets it."""
        key: list[str] = []
        self.slack.deliver_to = f"{at}/slack/events"
        [answer] = await self.slack.gestures.command(user, CHANNEL, f"/ota {text}", respond_at=self._addresses(key))
        return self._did(Deed(user, True, key[0], answer))

    async def clicks(self, at: str, user: str, ts: str, action: str = "proposal.confirm") -> Deed:
        key: list[str] = []
        self.slack.deliver_to = f"{at}/slack/events"
        [answer] = await self.slack.gestures.click(user, CHANNEL, ts, action_id=action, respond_at=self._addresses(key))
        return self._did(Deed(user, False, key[0], answer))

    def _addresses(self, kept: list[str]) -> Any:
        def respond_at(key: str) -> str:
            kept.append(f"{self.slack_url}/response/{key}")
            return kept[-1]

        return respond_at

    def _did(self, deed: Deed) -> Deed:
        self.deeds.append(deed)
        return deed

    def cards(self, job: str) -> list[SlackMessage]:
        """The root messages about a job."""
        roots = (one for one in self.workspace.messages(CHANNEL) if one.thread_ts is None)
        return [one for one in roots if one.user == self.slack.app.bot_user and f" {job} " in one.text]

    def live_button(self, job: str) -> str | None:
        """The `ts` of a message with buttons in a thread about this job."""
        threads = {card.ts for card in self.cards(job)}
        for places in self.workspace.live_buttons().values():
            for channel, ts in places:
                message = self.workspace.find(channel, ts)
                if message is not None and message.thread_ts in threads:
                    return ts
        return None

    def copies(self, *actions: str) -> list[Arrival]:
        """The copies of calls of these kinds that came."""
        return [one for one in self.arrivals if one.action in actions]

    def told(self, user: str) -> list[str]:
        """What the app told this person alone."""
        return [one.text for one in self.workspace.ephemerals(user) if one.user == self.slack.app.bot_user]

    def effects(self) -> dict[str, Effect]:
        """What was carried out, by the nonce of the copy that did it."""
        by_request = {effect.request_id: effect for effect in self.fleet.history}
        return {one.nonce: by_request[one.request_id] for one in self.arrivals if one.request_id in by_request}


@contextlib.asynccontextmanager
async def world(
    folder: Path,
    database_url: str,
    *,
    jobs: Sequence[dict[str, Any]],
    people: Sequence[str] = (),
    call_seconds: tuple[float, float] = CALL_SECONDS,
) -> AsyncIterator[World]:
    """A world with these rollouts; `people` are further members of the on-call group. `call_seconds`: so long a change
    is on its way, and its answer."""
    seed = {**load_seed(), "jobs": list(jobs)}
    fleet = Fleet.from_seed(seed, now=time.time, seed=SEED)
    arrivals: list[Arrival] = []

    def new_request_id() -> str:
        action, nonce = _call.get()
        arrivals.append(Arrival(action, nonce, str(uuid4()).upper(), time.time()))
        return arrivals[-1].request_id

    iot = create_iot_app(fleet, now=time.time, is_throttling=False, new_request_id=new_request_id)
    workspace = cast(WatchedWorkspace, WatchedWorkspace.from_seed())
    _staff(workspace, people)
    web = create_slack_app(
        workspace, signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN, app_token=APP_TOKEN, now=time.time
    )
    async with contextlib.AsyncExitStack() as stack:
        iot_port = await stack.enter_async_context(served(_slow_cloud(iot, call_seconds)))
        slack_port = await stack.enter_async_context(served(_slow_slack(web), has_lifespan=True))
        slack_url = f"http://127.0.0.1:{slack_port}"
        settings = sandbox_settings(
            folder, iot_url=f"http://127.0.0.1:{iot_port}", slack_url=slack_url, database_url=database_url
        )
        yield World(fleet, web.state.slack, workspace, iot.state.faults, dict(settings.environ), slack_url, arrivals)


def _staff(workspace: Workspace, people: Sequence[str]) -> None:
    for user in people:
        workspace.put_person(Person(id=user, handle=user.lower(), name=user, team=workspace.team_id))
        workspace.invite(CHANNEL, user)
    group = workspace.usergroups[ONCALL]
    workspace.put_usergroup(replace(group, users=(*group.users, *people)))


def _slow_cloud(app: ASGIApp, call_seconds: tuple[float, float]) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", ())}
        action, nonce = headers.get("x-acs-action", ""), headers.get("x-acs-signature-nonce", "")
        _call.set((action, nonce))
        there, back = call_seconds if action in CHANGES else (0.0, 0.0)
        await _with_delays(app, scope, receive, send, there=there, back=back)

    return serve


def _slow_slack(app: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["path"].startswith(("/api/chat.", "/response/"))
        there, back = POST_SECONDS if is_post else (0.0, 0.0)
        await _with_delays(app, scope, receive, send, there=there, back=back)

    return serve


async def _with_delays(app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, there: float, back: float) -> None:
    """Carried out after `there` seconds, whether the caller still lives or not, and answered `back` seconds later."""
    parts: list[Message] = []

    async def read_before() -> Message:
        return parts.pop(0) if parts else await receive()

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start" and back:
            await asyncio.sleep(back)
        await send(message)

    if there:
        parts.append(await receive())
        while parts[-1].get("more_body"):
            parts.append(await receive())
        await asyncio.sleep(there)
    await app(scope, read_before, late)
