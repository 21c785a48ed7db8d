"""How a Web API call is checked before a method sees it: token, scope, arguments; and what methods share.

A method outside the tables (`slack_methods`, `slack_files`) answers `unknown_method`. Stricter than Slack where Slack
forgives: an argument that is unknown, or that this fake does not model, is refused by name.
Sources: docs.slack.dev, "Web API methods", each page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.slack_blocks import complaints, with_ids
from bot.sandbox.slack_payloads import Json, message_json
from bot.sandbox.workspace import Channel, Message, Workspace

DEFAULT_SCOPES = frozenset(
    {
        "commands",
        "chat:write",
        "users:read",
        "usergroups:read",
        "channels:read",
        "groups:read",
        "app_mentions:read",
        "files:write",
        "im:write",
    }
)
MAX_POST_TEXT = 40_000

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
        self,
        workspace: Workspace,
        app: App,
        *,
        methods: Mapping[str, Method],
        now: Callable[[], float],
        open_connection: Callable[[], str],
    ) -> None:
        self.workspace = workspace
        self.app = app
        self.methods = methods
        self.now = now
        self.open_connection = open_connection

    def call(self, name: str, arguments: Arguments, *, token: str | None) -> Json:
        """The answer of one call; raises `Refused`."""
        method = self.methods.get(name)
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

    def thread_root(self, channel: Channel, ts: str) -> Message:
        """The message that starts the thread; a reply does not."""
        root = self.workspace.find(channel.id, ts)
        if root is None or root.seen_by is not None:
            raise Refused("message_not_found", "`thread_ts` is not a message of this channel")
        if root.thread_ts is not None:
            raise Refused("cannot_reply_to_message", "`thread_ts` is a reply; use its parent's")
        return root

    def new_message(self, arguments: Arguments, *, seen_by: str | None = None) -> Message:
        text, blocks = content_of(arguments, max_text=MAX_POST_TEXT)
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


_UNREADABLE = {"blocks": "invalid_blocks_format", "metadata": "invalid_metadata_format"}


def _checked(method: Method, arguments: Arguments) -> Arguments:
    """The arguments with their values as JSON would carry them: forms and queries send everything as text."""
    given = {name: value for name, value in arguments.items() if name not in ("token", "team_id") and value is not None}
    unknown = sorted(given.keys() - method.takes.keys())
    if unknown:
        raise Refused("invalid_arguments", *(f"unknown argument, or not modelled here: `{name}`" for name in unknown))
    missing = [name for name in method.needs if given.get(name) in (None, "", [])]
    if missing:
        raise Refused("invalid_arguments", *(f"missing required field: {name}" for name in missing))
    return {name: _value(name, value, kind=method.takes[name]) for name, value in given.items()}


def _value(name: str, value: Any, *, kind: str) -> Any:
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "integer" and not isinstance(value, bool) and str(value).isascii() and str(value).isdigit():
        return int(value)
    if kind == "boolean" and str(value).lower() in ("true", "false", "1", "0"):
        return str(value).lower() in ("true", "1")
    if kind in ("array", "object"):
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            parsed = None
        if isinstance(parsed, list if kind == "array" else Mapping):
            return parsed
        raise Refused(_UNREADABLE.get(name, "invalid_arguments"), f"must be an {kind} [json-pointer:/{name}]")
    raise Refused("invalid_arguments", f"must be a {kind} [json-pointer:/{name}]")


def content_of(arguments: Arguments, *, max_text: int) -> tuple[str, list[Json]]:
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
