"""The Web API methods that the bot calls, checked as Slack does: token, scope, arguments, place, content.

A method outside the table answers `unknown_method`. Stricter than Slack where Slack forgives: an argument that is
unknown, or that this fake does not model, is refused by name. Sources: docs.slack.dev, "Web API methods", each page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.slack_blocks import complaints, with_ids
from bot.sandbox.slack_payloads import Json, channel_json, message_json, user_json, usergroup_json
from bot.sandbox.workspace import Channel, Message, Workspace

DEFAULT_SCOPES = frozenset(
    {"commands", "chat:write", "users:read", "usergroups:read", "channels:read", "groups:read", "app_mentions:read"}
)
MAX_POST_TEXT = 40_000
MAX_UPDATE_TEXT = 4_000

Arguments = Mapping[str, Any]


class Refused(Exception):
    """An answer with `ok: false`; `messages` are the sentences in `response_metadata`, `facts` further fields."""

    def __init__(self, error: str, *messages: str, **facts: Any) -> None:
        super().__init__(error)
        self.answer: Json = {"ok": False, "error": error, **facts}
        if messages:
            self.answer["response_metadata"] = {"messages": [f"[ERROR] {message}" for message in messages]}


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The one app that is installed, and its secrets."""

    app_id: str
    bot_user: str
    bot_id: str
    bot_token: str = field(repr=False)
    app_token: str = field(repr=False)
    signing_secret: str = field(repr=False)
    scopes: frozenset[str] = DEFAULT_SCOPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method: the arguments it takes with their kinds, which of them it needs, and what the token must have."""

    carry_out: Callable[[WebApi, Arguments], Json]
    takes: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    wants_app_token: bool = False


class WebApi:
    """Answers Web API calls from the workspace's state."""

    def __init__(
        self, workspace: Workspace, app: App, *, now: Callable[[], float], open_connection: Callable[[], str]
    ) -> None:
        self.workspace = workspace
        self.app = app
        self.now = now
        self.open_connection = open_connection

    def call(self, name: str, arguments: Arguments, *, token: str | None) -> Json:
        """The answer of one call; raises `Refused`."""
        method = METHODS.get(name)
        if method is None:
            raise Refused("unknown_method", req_method=name)
        self._check_token(method, token)
        return {"ok": True, **method.carry_out(self, _checked(method, arguments))}

    def _check_token(self, method: Method, token: str | None) -> None:
        if token is None:
            raise Refused("not_authed")
        if token not in (self.app.bot_token, self.app.app_token):
            raise Refused("invalid_auth")
        if (token == self.app.app_token) is not method.wants_app_token:
            raise Refused("not_allowed_token_type")
        if method.scopes and not self.app.scopes.intersection(method.scopes):
            provided = ",".join(sorted(self.app.scopes))
            raise Refused("missing_scope", needed=",".join(method.scopes), provided=provided)

    def visible_channel(self, channel_id: str) -> Channel:
        """A channel that the app may know of: a private one only from inside."""
        channel = self.workspace.channels.get(channel_id)
        if channel is None or ((channel.is_private or channel.is_direct) and self.app.bot_user not in channel.members):
            raise Refused("channel_not_found")
        return channel

    def writable_channel(self, channel_id: str, *, for_everyone: bool) -> Channel:
        channel = self.visible_channel(channel_id)
        if channel.is_archived:
            raise Refused("is_archived")
        may_write_outside = for_everyone and "chat:write.public" in self.app.scopes
        if self.app.bot_user not in channel.members and not may_write_outside:
            raise Refused("not_in_channel")
        return channel

    def new_message(self, arguments: Arguments, *, seen_by: str | None = None) -> Message:
        text, blocks = _content(arguments, max_text=MAX_POST_TEXT)
        ts = self.workspace.mint_ts(self.now())
        return self.workspace.say(
            Message(
                channel=arguments["channel"],
                ts=ts,
                user=self.app.bot_user,
                bot_id=self.app.bot_id,
                text=text,
                blocks=with_ids(blocks, stem=ts[-6:]),
                thread_ts=arguments.get("thread_ts"),
                is_broadcast=bool(arguments.get("reply_broadcast")),
                metadata=arguments.get("metadata"),
                seen_by=seen_by,
            )
        )

    def shown(self, message: Message) -> Json:
        return message_json(self.workspace, message) | {"app_id": self.app.app_id}


def _auth_test(api: WebApi, arguments: Arguments) -> Json:
    workspace, bot = api.workspace, api.workspace.people[api.app.bot_user]
    return {
        "url": f"https://{workspace.domain}.slack.com/",
        "team": workspace.team_name,
        "user": bot.handle,
        "team_id": workspace.team_id,
        "user_id": bot.id,
        "bot_id": api.app.bot_id,
        "is_enterprise_install": False,
    }


def _post_message(api: WebApi, arguments: Arguments) -> Json:
    channel = api.writable_channel(arguments["channel"], for_everyone=True)
    thread = arguments.get("thread_ts")
    if thread is None and arguments.get("reply_broadcast"):
        raise Refused("invalid_arguments", "`reply_broadcast` needs `thread_ts`")
    root = api.workspace.find(channel.id, thread) if thread else None
    if thread and (root is None or root.seen_by is not None):
        raise Refused("message_not_found", "`thread_ts` is not a message of this channel")
    if root is not None and root.thread_ts is not None:
        raise Refused("cannot_reply_to_message", "`thread_ts` is a reply; use its parent's")
    message = api.new_message(arguments)
    return {"channel": channel.id, "ts": message.ts, "message": api.shown(message)}


def _update(api: WebApi, arguments: Arguments) -> Json:
    channel = api.visible_channel(arguments["channel"])
    message = api.workspace.find(channel.id, arguments["ts"])
    if message is None:
        raise Refused("message_not_found")
    if message.user != api.app.bot_user:
        raise Refused("cant_update_message")
    if channel.is_archived:
        raise Refused("is_archived")
    text, blocks = _content(arguments, max_text=MAX_UPDATE_TEXT)
    if arguments.get("reply_broadcast") and message.thread_ts is None:
        raise Refused("invalid_arguments", "`reply_broadcast` needs a message in a thread")
    changed = api.workspace.change(
        message,
        text=text if "text" in arguments else message.text,
        blocks=with_ids(blocks, stem=message.ts[-6:]),  # text without blocks takes the blocks away, as in Slack
        is_broadcast=message.is_broadcast or bool(arguments.get("reply_broadcast")),
        edited_ts=message.edited_ts if blocks else api.workspace.mint_ts(api.now()),
        metadata=arguments.get("metadata", message.metadata),
    )
    return {"channel": channel.id, "ts": changed.ts, "text": changed.text, "message": api.shown(changed)}


def _post_ephemeral(api: WebApi, arguments: Arguments) -> Json:
    channel = api.writable_channel(arguments["channel"], for_everyone=False)
    person = api.workspace.people.get(arguments["user"])
    if person is None or person.is_deactivated or person.id not in channel.members:
        raise Refused("user_not_in_channel")
    return {"message_ts": api.new_message(arguments, seen_by=person.id).ts}


def _users_info(api: WebApi, arguments: Arguments) -> Json:
    person = api.workspace.people.get(arguments["user"])
    if person is None:
        raise Refused("user_not_found")
    shown = user_json(person, team_id=api.workspace.team_id)
    return {"user": shown | ({"locale": person.locale} if arguments.get("include_locale") else {})}


def _usergroups_list(api: WebApi, arguments: Arguments) -> Json:
    shown = []
    for group in api.workspace.usergroups.values():
        extra: Json = {}
        if arguments.get("include_users"):
            extra["users"] = list(group.users)
        if arguments.get("include_count"):
            extra["user_count"] = len(group.users)
        shown.append(usergroup_json(group, team_id=api.workspace.team_id) | extra)
    return {"usergroups": shown}


def _usergroups_users_list(api: WebApi, arguments: Arguments) -> Json:
    group = api.workspace.usergroups.get(arguments["usergroup"])
    if group is None:
        raise Refused("no_such_subteam")
    return {"users": list(group.users)}


def _conversations_info(api: WebApi, arguments: Arguments) -> Json:
    channel = api.visible_channel(arguments["channel"])
    shown = channel_json(channel, team_id=api.workspace.team_id, bot_user=api.app.bot_user)
    return {"channel": shown | ({"num_members": len(channel.members)} if arguments.get("include_num_members") else {})}


def _connections_open(api: WebApi, arguments: Arguments) -> Json:
    return {"url": api.open_connection()}


CONTENT = {"text": "string", "blocks": "array", "parse": "string", "link_names": "boolean", "metadata": "object"}
POSTED = CONTENT | {
    "channel": "string",
    "thread_ts": "string",
    "mrkdwn": "boolean",
    "unfurl_links": "boolean",
    "unfurl_media": "boolean",
}

METHODS: Mapping[str, Method] = {
    "auth.test": Method(carry_out=_auth_test),
    "chat.postMessage": Method(
        carry_out=_post_message,
        takes=POSTED | {"reply_broadcast": "boolean"},
        needs=("channel",),
        scopes=("chat:write",),
    ),
    "chat.update": Method(
        carry_out=_update,
        takes=CONTENT | {"channel": "string", "ts": "string", "reply_broadcast": "boolean"},
        needs=("channel", "ts"),
        scopes=("chat:write",),
    ),
    "chat.postEphemeral": Method(
        carry_out=_post_ephemeral,
        takes={name: kind for name, kind in POSTED.items() if not name.startswith(("unfurl", "metadata"))}
        | {"user": "string"},
        needs=("channel", "user"),
        scopes=("chat:write",),
    ),
    "users.info": Method(
        carry_out=_users_info,
        takes={"user": "string", "include_locale": "boolean"},
        needs=("user",),
        scopes=("users:read",),
    ),
    "usergroups.list": Method(
        carry_out=_usergroups_list,
        takes=dict.fromkeys(("include_users", "include_count", "include_disabled"), "boolean"),
        scopes=("usergroups:read",),
    ),
    "usergroups.users.list": Method(
        carry_out=_usergroups_users_list,
        takes={"usergroup": "string", "include_disabled": "boolean"},
        needs=("usergroup",),
        scopes=("usergroups:read",),
    ),
    "conversations.info": Method(
        carry_out=_conversations_info,
        takes={"channel": "string", "include_locale": "boolean", "include_num_members": "boolean"},
        needs=("channel",),
        scopes=("channels:read", "groups:read"),
    ),
    "apps.connections.open": Method(carry_out=_connections_open, wants_app_token=True),
}


def _checked(method: Method, arguments: Arguments) -> Arguments:
    """The arguments with their values as JSON would carry them: forms and queries send everything as text."""
    given = {name: value for name, value in arguments.items() if name not in ("token", "team_id") and value is not None}
    unknown = sorted(given.keys() - method.takes.keys())
    if unknown:
        raise Refused("invalid_arguments", *(f"unknown argument, or not modelled here: `{name}`" for name in unknown))
    missing = [name for name in method.needs if not given.get(name)]
    if missing:
        raise Refused("invalid_arguments", *(f"missing required field: {name}" for name in missing))
    return {name: _value(name, value, kind=method.takes[name]) for name, value in given.items()}


def _value(name: str, value: Any, *, kind: str) -> Any:
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "boolean" and str(value).lower() in ("true", "false", "1", "0"):
        return str(value).lower() in ("true", "1")
    if kind in ("array", "object"):
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            parsed = None
        if isinstance(parsed, list if kind == "array" else Mapping):
            return parsed
        raise Refused("invalid_blocks_format" if kind == "array" else "invalid_metadata_format")
    raise Refused("invalid_arguments", f"must be a {kind} [json-pointer:/{name}]")


def _content(arguments: Arguments, *, max_text: int) -> tuple[str, list[Json]]:
    text: str = arguments.get("text", "")
    blocks: list[Json] = arguments.get("blocks", [])
    found = complaints(blocks)
    if found:
        raise Refused("invalid_blocks", *found, errors=list(found))
    if not text.strip() and not blocks:
        raise Refused("no_text")
    if len(text) > max_text:
        raise Refused("msg_too_long")
    return text, blocks
