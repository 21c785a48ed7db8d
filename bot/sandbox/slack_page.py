"""The fake Slack's page: its files, and the workspace and conversations as it shows them.

The page is a plain one: no build, nothing from another origin, and message text becomes text nodes only.
"""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.slack_payloads import Json, message_json
from bot.sandbox.workspace import SLACKBOT, Channel, Person, Workspace

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/node.js": ("node.js", "text/javascript"),
    "/files.js": ("files.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'",
}


async def _file(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    content = resources.files("bot.sandbox").joinpath("page", name).read_bytes()
    return Response(content, media_type=kind, headers=HEADERS)


async def _hints(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    return JSONResponse({"ok": True, "hints": slack.workspace.hints})


async def _workspace(request: Request) -> Response:
    slack: FakeSlack = request.app.state.slack
    workspace = slack.workspace
    return JSONResponse(
        {
            "ok": True,
            "team": workspace.team_name,
            "people": [_person(one, workspace) for one in workspace.people.values()],
            "channels": [_channel(one) for one in workspace.channels.values()],
            "usergroups": [{"id": one.id, "handle": one.handle} for one in workspace.usergroups.values()],
        }
    )


async def _conversation(request: Request) -> Response:
    """A channel as one person sees it, threads under their roots; 204 if nothing changed since `version`.

    `conversations` names the channels there are, so that the page learns of a new direct message.
    """
    slack: FakeSlack = request.app.state.slack
    workspace, asked = slack.workspace, request.query_params
    channel, user = asked.get("channel", ""), asked.get("user", "")
    if channel not in workspace.channels:
        return JSONResponse({"ok": False, "error": f"There is no channel with the id {channel}."}, status_code=400)
    if asked.get("version") == str(workspace.version):
        return Response(status_code=204)
    shown = _as_seen(workspace, channel, user=user)
    there = list(workspace.channels)
    return JSONResponse({"ok": True, "version": workspace.version, "conversations": there, "messages": shown})


def _as_seen(workspace: Workspace, channel: str, *, user: str) -> list[Json]:
    alone = [one for one in workspace.ephemerals(user) if one.channel == channel]
    in_channel = [*workspace.messages(channel), *(one for one in alone if one.thread_ts is None)]
    shown = []
    for message in sorted(in_channel, key=lambda one: one.ts):
        is_root = message.thread_ts is None and message.seen_by is None
        thread = workspace.messages(channel, message.ts)[1:] if is_root else ()
        mine = [one for one in alone if one.thread_ts == message.ts]
        replies = sorted((*thread, *mine), key=lambda one: one.ts)
        shown.append(
            message_json(workspace, message) | {"replies": [message_json(workspace, reply) for reply in replies]}
        )
    return shown


def _person(person: Person, workspace: Workspace) -> Json:
    return {
        "id": person.id,
        "name": person.name,
        "handle": person.handle,
        "is_bot": person.bot_id is not None or person.id == SLACKBOT,
        "is_guest": person.is_guest,
        "is_outside": person.team != workspace.team_id,
        "is_deactivated": person.is_deactivated,
    }


def _channel(channel: Channel) -> Json:
    return {
        "id": channel.id,
        "name": channel.name,
        "topic": channel.topic,
        "members": sorted(channel.members),
        "is_private": channel.is_private,
        "is_archived": channel.is_archived,
        "is_shared": bool(channel.shared_with),
        "is_direct": channel.is_direct,
    }


def page_data_routes() -> list[BaseRoute]:
    """What the page reads, below `/_sandbox`."""
    return [Route("/hints", _hints), Route("/workspace", _workspace), Route("/conversation", _conversation)]


def page_routes() -> list[BaseRoute]:
    """The page and what it loads."""
    return [Route(path, _file) for path in FILES]
