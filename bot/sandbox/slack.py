"""The fake Slack as one web application: Web API, response_urls, Socket Mode, `/_sandbox/` and a page.

The rooms: `workspace` (state), `slack_api` (calls), `slack_methods` and `slack_files` (what they do), `slack_blocks`
(limits), `slack_payloads` and `slack_delivery` (what goes out), `slack_replies` (what comes back), `slack_gestures`
(what people do), `slack_control` (how tests and the page drive it), `slack_page` (what the page shows). It keeps
nothing on disk but uploads, in a file without a name; it knows one app in one workspace and never reaches out except
to `deliver_to`. Slack's own docs.slack.dev is what it imitates.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

from bot.sandbox.slack_api import DEFAULT_SCOPES, App, Refused
from bot.sandbox.slack_control import control_routes
from bot.sandbox.slack_fake import FakeSlack, Fault
from bot.sandbox.slack_files import read_file, take_upload
from bot.sandbox.slack_page import page_data_routes, page_routes
from bot.sandbox.workspace import Workspace

__all__ = ["ACK_SECONDS", "FakeSlack", "Fault", "create_slack_app"]

ACK_SECONDS = 3.0


def create_slack_app(
    workspace: Workspace,
    *,
    signing_secret: str,
    bot_token: str,
    app_token: str,
    app_id: str = "A0OTABRAKE",
    team_id: str = "T0SANDBOX1",
    deliver_to: str | None = None,
    now: Callable[[], float],
    bot_user: str = "U0OTABRAKE",
    scopes: frozenset[str] = DEFAULT_SCOPES,
    ack_seconds: float = ACK_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """A fake Slack with one app installed. `app.state.slack` is its `FakeSlack`.

    `now` gives seconds since 1970 and is used for every timestamp and expiry. `transport` lets deliveries go to an
    application in this process. Raises `ValueError` if the workspace has another id or lacks the bot.
    """
    bot = workspace.people.get(bot_user)
    if workspace.team_id != team_id:
        raise ValueError(f"the workspace is {workspace.team_id}, not {team_id}")
    if bot is None or bot.bot_id is None:
        raise ValueError(f"the workspace has no bot {bot_user}")
    app = App(
        app_id=app_id,
        bot_user=bot_user,
        bot_id=bot.bot_id,
        bot_token=bot_token,
        app_token=app_token,
        signing_secret=signing_secret,
        scopes=scopes,
    )
    slack = FakeSlack(workspace, app, deliver_to=deliver_to, now=now, ack_seconds=ack_seconds, transport=transport)
    return _web_application(slack)


def _web_application(slack: FakeSlack) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await slack.courier.aclose()

    web = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/api/{method}", _web_api, methods=["GET", "POST"]),
            Route("/response/{key}", _response_url, methods=["POST"]),
            Route("/upload/v1/{ticket}", _upload, methods=["POST"]),
            Route("/files/{file_id}/{name}", _read_file, methods=["GET"]),
            WebSocketRoute("/link", slack.sockets.serve),
            Mount("/_sandbox", routes=[*control_routes(), *page_data_routes()]),
            *page_routes(),
        ],
    )
    web.state.slack = slack
    return web


async def _web_api(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    name = request.path_params["method"]
    arguments, token, answer = await _read(request)
    channel = str(arguments.get("channel") or arguments.get("channel_id", ""))
    fault = slack.take_fault(name, channel) or _throttled(slack, name, channel)
    if fault is not None and not fault.is_carried_out:
        return _faulty(fault)
    if answer is None:
        answer = _answered(slack, name, arguments, token)
    if fault is not None:
        return _faulty(fault)
    if name == "apps.connections.open" and answer["ok"]:
        answer["url"] = f"{_base(request).replace('http', 'ws', 1)}/link?ticket={answer['url']}"
    if "upload_url" in answer:
        answer["upload_url"] = _base(request) + answer["upload_url"]
    scopes = ",".join(sorted(slack.app.scopes))
    return JSONResponse(answer, headers={"X-OAuth-Scopes": scopes, "X-Slack-Req-Id": "sandbox"})


async def _read(request: Request) -> tuple[Mapping[str, Any], str | None, dict[str, Any] | None]:
    """The arguments and the token, or the answer to a call that cannot be read."""
    try:
        arguments, token = await _arguments(request)
    except Refused as refusal:
        return {}, None, refusal.answer
    return arguments, token, None


def _answered(slack: FakeSlack, name: str, arguments: Mapping[str, Any], token: str | None) -> dict[str, Any]:
    try:
        return slack.api.call(name, arguments, token=token)
    except Refused as refusal:
        return refusal.answer


def _throttled(slack: FakeSlack, name: str, channel: str) -> Fault | None:
    pause = slack.pace.retry_after(name, channel) if slack.pace is not None else None
    return Fault(method=name, error="ratelimited", status=429, retry_after=pause) if pause is not None else None


async def _arguments(request: Request) -> tuple[Mapping[str, Any], str | None]:
    """The arguments of a call from query, form or JSON body, and its token (in JSON only as a header, as in Slack)."""
    bearer = request.headers.get("authorization", "").partition("Bearer ")[2].strip() or None
    arguments: dict[str, Any] = dict(request.query_params)
    body = await request.body()
    if body and "json" in request.headers.get("content-type", ""):
        try:
            given = json.loads(body)
        except ValueError:
            raise Refused("invalid_json") from None
        if not isinstance(given, dict):
            raise Refused("json_not_object")
        return arguments | given, bearer
    try:
        arguments |= dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        raise Refused("invalid_form_data") from None
    return arguments, bearer or arguments.get("token")


def _faulty(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return JSONResponse({"ok": False, "error": fault.error}, status_code=fault.status, headers=headers)


async def _response_url(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    status, text = slack.replies.use(request.path_params["key"], await request.body())
    return PlainTextResponse(text, status_code=status)


async def _upload(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    fault = slack.take_fault("upload")
    if fault is not None and not fault.is_carried_out:
        return _faulty(fault)
    taken = await take_upload(slack.shelf, request)
    return taken if fault is None else _faulty(fault)


async def _read_file(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    return read_file(slack.shelf, request)


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")
