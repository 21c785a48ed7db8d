"""What an app says back: in the acknowledgement of a command, and at a `response_url`.

A `response_url` works five times within thirty minutes and then answers 404. An ephemeral never becomes a message that
everybody sees. Source: docs.slack.dev "Handling user interaction" (message responses), "Implementing slash commands".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from bot.sandbox.slack_blocks import complaints, with_ids
from bot.sandbox.slack_delivery import Answer
from bot.sandbox.workspace import SLACKBOT, Message, Workspace

MAX_USES = 5
MAX_AGE_SECONDS = 30 * 60

KNOWN = frozenset(
    {
        "text",
        "blocks",
        "response_type",
        "replace_original",
        "delete_original",
        "thread_ts",
        "mrkdwn",
        "parse",
        "unfurl_links",
        "unfurl_media",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a reply goes: to this person in this channel; `original` is the message that replace and delete mean."""

    user: str
    channel: str
    thread_ts: str | None = None
    original: Message | None = None
    made_at: float = 0.0
    uses: int = 0


class Replies:
    """The open response_urls of one app, and the way from a reply to a message."""

    def __init__(self, workspace: Workspace, *, bot_user: str, bot_id: str, now: Callable[[], float]) -> None:
        self._workspace = workspace
        self._bot_user = bot_user
        self._bot_id = bot_id
        self._now = now
        self._places: dict[str, Place] = {}

    def mint(self, place: Place) -> str:
        """The secret part of a new response_url."""
        key = uuid4().hex
        self._places[key] = replace(place, made_at=self._now())
        return key

    def use(self, key: str, body: bytes) -> tuple[int, str]:
        """The HTTP status and text of one post to a response_url."""
        place = self._places.get(key)
        if place is None:
            return 404, _refusal("invalid_url")
        if self._now() - place.made_at > MAX_AGE_SECONDS:
            return 404, _refusal("expired_url")
        if place.uses >= MAX_USES:
            return 404, _refusal("used_url")
        try:
            reply = json.loads(body)
        except ValueError:
            return 400, _refusal("invalid_payload")
        error = self.error_in(reply)
        if error is not None:
            return 400, _refusal(error)
        shown = self.show(place, reply)
        self._places[key] = replace(place, uses=place.uses + 1, original=shown or place.original)
        return 200, "ok"

    def show_acknowledgement(self, key: str, answer: Answer, *, typed: str) -> str | None:
        """Shows what came back for a command; the error that Slack shows instead, if any."""
        place = self._places[key]
        if answer.error is not None or not answer.body.strip():
            return answer.error
        reply = _parsed(answer.body)
        error = self.error_in(reply, is_acknowledgement=True)
        if error is not None:
            return error
        if reply.get("response_type") == "in_channel":
            ts = self._workspace.mint_ts(self._now())
            self._workspace.say(Message(channel=place.channel, ts=ts, user=place.user, text=typed))
        if reply.get("text") or reply.get("blocks"):
            self._places[key] = replace(place, original=self.show(place, reply))
        return None

    def error_in(self, reply: Any, *, is_acknowledgement: bool = False) -> str | None:
        """Why Slack would not take this reply."""
        if not isinstance(reply, Mapping) or reply.keys() - KNOWN:
            return "invalid_payload"
        if complaints(reply.get("blocks") or []):
            return "invalid_blocks"
        if reply.get("response_type", "ephemeral") not in ("ephemeral", "in_channel"):
            return "invalid_payload"
        if reply.get("thread_ts") and reply.get("response_type") != "in_channel":
            return "invalid_payload"
        is_empty = not reply.get("text") and not reply.get("blocks")
        if is_empty and not is_acknowledgement and not reply.get("delete_original"):
            return "no_text"
        return None

    def show(self, place: Place, reply: Mapping[str, Any]) -> Message | None:
        """Carries out one reply; the message that stands now, or None after a deletion."""
        original = self._standing(place)
        if reply.get("delete_original"):
            if original is not None:
                self._workspace.remove(original)
            return None
        ts = self._workspace.mint_ts(self._now())
        content: dict[str, Any] = {
            "text": str(reply.get("text", "")),
            "blocks": with_ids(reply.get("blocks") or (), stem=ts[-6:]),
        }
        if reply.get("replace_original") and original is not None:
            return self._workspace.change(original, **content)
        is_ephemeral = reply.get("response_type") != "in_channel"
        return self._workspace.say(
            Message(
                channel=place.channel,
                ts=ts,
                user=self._bot_user,
                bot_id=self._bot_id,
                thread_ts=place.thread_ts if is_ephemeral else reply.get("thread_ts"),
                seen_by=place.user if is_ephemeral else None,
                **content,
            )
        )

    def tell(self, place: Place, text: str) -> None:
        """Slackbot tells this person alone that something went wrong."""
        ts = self._workspace.mint_ts(self._now())
        self._workspace.say(
            Message(
                channel=place.channel, ts=ts, user=SLACKBOT, text=text, thread_ts=place.thread_ts, seen_by=place.user
            )
        )

    def _standing(self, place: Place) -> Message | None:
        """The original as it is now: never somebody else's, it may have been updated or removed since."""
        if place.original is None:
            return None
        found = self._workspace.find(place.original.channel, place.original.ts, seen_by=place.user)
        return found if found is not None and found.bot_id == self._bot_id else None


def _parsed(body: str) -> Any:
    """A command may be answered with plain text or with JSON."""
    try:
        reply = json.loads(body)
    except ValueError:
        return {"text": body}
    return reply if isinstance(reply, Mapping) else {"text": body}


def _refusal(error: str) -> str:
    return json.dumps({"ok": False, "error": error})
