"""The fake Slack's parts, put together: one workspace, one app, and the faults that its Web API is told to have.

No HTTP is in it; `slack` makes it a web application. A fault is what a real Slack does now and then, on demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from bot.sandbox.slack_api import App, WebApi
from bot.sandbox.slack_delivery import Courier, Sockets
from bot.sandbox.slack_files import Shelf
from bot.sandbox.slack_gestures import Gestures
from bot.sandbox.slack_methods import METHODS
from bot.sandbox.slack_pace import PostingPace
from bot.sandbox.slack_replies import Replies
from bot.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the next `times` calls of a method answer; `is_carried_out`: the call took effect, its answer is lost.

    The method `upload` stands for the posts to upload addresses. With a `channel`, only calls for that one meet it.
    """

    method: str
    error: str = "internal_error"
    status: int = 200
    retry_after: int | None = None
    times: int = 1
    is_carried_out: bool = False
    channel: str | None = None


class FakeSlack:
    """Everything that one running fake consists of; `app.state.slack` of the web application."""

    def __init__(
        self,
        workspace: Workspace,
        app: App,
        *,
        deliver_to: str | None,
        now: Callable[[], float],
        ack_seconds: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.workspace = workspace
        self.app = app
        self.now = now
        self.faults: list[Fault] = []
        self.pace: PostingPace | None = None
        self.sockets = Sockets(app.app_id)
        self.courier = Courier(
            signing_secret=app.signing_secret,
            deliver_to=deliver_to,
            sockets=self.sockets,
            now=now,
            ack_seconds=ack_seconds,
            transport=transport,
        )
        self.replies = Replies(workspace, bot_user=app.bot_user, bot_id=app.bot_id, now=now)
        self.shelf = Shelf()
        self.api = WebApi(
            workspace,
            app,
            methods={**METHODS, **self.shelf.methods()},
            now=now,
            open_connection=self.sockets.mint_ticket,
        )
        self.gestures = Gestures(workspace=workspace, app=app, courier=self.courier, replies=self.replies, now=now)

    @property
    def deliver_to(self) -> str | None:
        """The URL that receives commands, clicks and events; may be set once the app's port is known."""
        return self.courier.deliver_to

    @deliver_to.setter
    def deliver_to(self, url: str | None) -> None:
        self.courier.deliver_to = url

    def take_fault(self, method: str, channel: str | None = None) -> Fault | None:
        """The fault that this call meets, and one time less of it."""
        met = (
            at
            for at, fault in enumerate(self.faults)
            if fault.method in (method, "*") and fault.channel in (None, channel)
        )
        place = next(met, None)
        if place is None:
            return None
        fault = self.faults.pop(place)
        if fault.times > 1:
            self.faults.insert(place, replace(fault, times=fault.times - 1))
        return fault
