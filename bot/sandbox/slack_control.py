"""How tests and the page drive the fake Slack: the `/_sandbox/` endpoints.

Every gesture answers with what the app answered. What a person could not do is refused with 400 and a sentence.
Nothing here is Slack's; the names are those of the design's "names others depend on".
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.sandbox.slack_delivery import Answer
from bot.sandbox.slack_fake import FakeSlack, Fault
from bot.sandbox.slack_gestures import Impossible
from bot.sandbox.slack_pace import PostingPace
from bot.sandbox.slack_payloads import message_json

Told = Mapping[str, Any]
Gesture = Callable[[FakeSlack, Told, Callable[[str], str]], Awaitable[tuple[Answer, ...]]]


async def _command(slack: FakeSlack, told: Told, respond_at: Callable[[str], str]) -> tuple[Answer, ...]:
    if told.get("thread"):
        raise Impossible("Slash commands do not work in threads.")
    user, channel, text = _words(told, "user", "channel", "text")
    return await slack.gestures.command(user, channel, text, respond_at=respond_at, copies=_copies(told))


async def _mention(slack: FakeSlack, told: Told, respond_at: Callable[[str], str]) -> tuple[Answer, ...]:
    user, channel, text = _words(told, "user", "channel", "text")
    return await slack.gestures.mention(user, channel, text, thread=told.get("thread"), copies=_copies(told))


async def _click(slack: FakeSlack, told: Told, respond_at: Callable[[str], str]) -> tuple[Answer, ...]:
    user, channel, ts, action_id = _words(told, "user", "channel", "ts", "action_id")
    return await slack.gestures.click(
        user, channel, ts, action_id=action_id, respond_at=respond_at, copies=_copies(told)
    )


async def _shortcut(slack: FakeSlack, told: Told, respond_at: Callable[[str], str]) -> tuple[Answer, ...]:
    user, channel, ts, callback_id = _words(told, "user", "channel", "ts", "callback_id")
    return await slack.gestures.shortcut(
        user, channel, ts, callback_id=callback_id, respond_at=respond_at, copies=_copies(told)
    )


def _endpoint(gesture: Gesture) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        slack: FakeSlack = request.app.state.slack
        base = str(request.url.replace(path="", query=""))
        try:
            answers = await gesture(slack, await _told(request), lambda key: f"{base}/response/{key}")
        except Impossible as why:
            return _refused(str(why))
        last = answers[-1].as_json() if answers else Answer("http").as_json()
        return JSONResponse({"ok": True, **last, "copies": [one.as_json() for one in answers]})

    return answer


async def _faults(request: Request) -> Response:
    """`{method, error, status, retry_after, times, is_carried_out, channel}` adds a fault, `{clear: true}` ends them.

    `{disconnect: reason}` tells the open sockets to go. `{pace: {burst, seconds}}` limits posts into each channel from
    now on, `{pace: null}` no more.
    """
    slack: FakeSlack = request.app.state.slack
    try:
        told = dict(await _told(request))
        if told.pop("clear", False):
            slack.faults.clear()
        if "pace" in told:
            slack.pace = _pace(told.pop("pace"), slack)
        disconnect = told.pop("disconnect", None)
        gone = await slack.sockets.disconnect(str(disconnect)) if disconnect else 0
        if told:
            slack.faults.append(_fault(told))
    except Impossible as why:
        return _refused(str(why))
    return JSONResponse({"ok": True, "disconnected": gone, "faults": len(slack.faults)})


def _pace(told: Any, slack: FakeSlack) -> PostingPace | None:
    if told is None:
        return None
    try:
        burst, seconds = int(told["burst"]), float(told["seconds"])
    except (KeyError, TypeError, ValueError):
        burst, seconds = 0, 0.0
    if burst < 1 or seconds <= 0:
        raise Impossible("A pace has a `burst` of at least 1 and `seconds` above 0.")
    return PostingPace(burst=burst, seconds=seconds, now=slack.now)


def _fault(told: Told) -> Fault:
    known = {field.name for field in fields(Fault)}
    if "method" not in told or told.keys() - known:
        raise Impossible(f"A fault has `method` (or `*`) and any of {', '.join(sorted(known - {'method'}))}.")
    if told.get("error") == "ratelimited":
        return Fault(**{"status": 429, "retry_after": 1, **told})
    return Fault(**told)


async def _submit(request: Request) -> Response:
    sentence = "This fake Slack has no modals yet, so there is nothing to submit."
    return JSONResponse({"ok": False, "error": sentence}, status_code=501)


async def _messages(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    channel = request.query_params.get("channel", "")
    if channel not in slack.workspace.channels:
        return _refused(f"There is no channel with the id {channel}.")
    said = slack.workspace.messages(channel, request.query_params.get("thread"))
    return JSONResponse({"ok": True, "messages": [message_json(slack.workspace, one) for one in said]})


async def _ephemerals(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    seen = slack.workspace.ephemerals(request.query_params.get("user", ""))
    return JSONResponse({"ok": True, "ephemerals": [message_json(slack.workspace, one) for one in seen]})


async def _views(request: Request) -> Response:
    return JSONResponse({"ok": True, "views": []})


async def _home(request: Request) -> Response:
    return JSONResponse({"ok": True, "home": None})


def control_routes() -> list[BaseRoute]:
    """The routes below `/_sandbox`."""
    gestures = {"/command": _command, "/mention": _mention, "/shortcut": _shortcut, "/click": _click}
    reads = {
        "/messages": _messages,
        "/ephemerals": _ephemerals,
        "/views": _views,
        "/home": _home,
    }
    return [
        *(Route(path, _endpoint(gesture), methods=["POST"]) for path, gesture in gestures.items()),
        Route("/faults", _faults, methods=["POST"]),
        Route("/submit", _submit, methods=["POST"]),
        *(Route(path, read, methods=["GET"]) for path, read in reads.items()),
    ]


def _refused(sentence: str) -> Response:
    return JSONResponse({"ok": False, "error": sentence}, status_code=400)


async def _told(request: Request) -> Told:
    try:
        told = json.loads(await request.body())
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Impossible("Send a JSON object.")
    return told


def _words(told: Told, *names: str) -> tuple[str, ...]:
    missing = [name for name in names if not isinstance(told.get(name), str)]
    if missing:
        raise Impossible(f"Missing, or not text: {', '.join(missing)}.")
    return tuple(told[name] for name in names)


def _copies(told: Told) -> int:
    copies = told.get("copies", 1)
    if not isinstance(copies, int) or not 1 <= copies <= 10:
        raise Impossible("`copies` is a whole number from 1 to 10.")
    return copies
