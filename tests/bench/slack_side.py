"""The fake Slack in the benchmark's own process: what the servers under measurement talk to.

One thing is added to it: any `response_url` takes anything, so that thousands of answers to one address are possible.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from bot.sandbox.server import APP_TOKEN, BOT_TOKEN, SIGNING_SECRET
from bot.sandbox.slack import create_slack_app
from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.workspace import load_workspace
from bot.server import served


@dataclass(frozen=True, slots=True)
class SlackSide:
    url: str
    slack: FakeSlack

    @property
    def response_url(self) -> str:
        return f"{self.url}/response/any"


@contextlib.asynccontextmanager
async def slack_side() -> AsyncIterator[SlackSide]:
    """Runs the fake Slack as long as the block runs."""
    web = create_slack_app(
        load_workspace(), signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN, app_token=APP_TOKEN, now=time.time
    )
    async with served(_taking_any_answer(web), has_lifespan=True) as port:
        yield SlackSide(f"http://127.0.0.1:{port}", web.state.slack)


def _taking_any_answer(web: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/response/"):
            await web(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return serve
