"""Slack's payloads as the core's values. Pure; names and texts in a payload are never trusted as identity."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from bot.exchange import Choice, Click, Delivery, Pick, ReplyTo
from bot.model import Notice, Place
from bot.operations import Operations
from bot.slack.gate import Admitted, Kind
from bot.slack.grammar import parse


class ActionId(StrEnum):
    """The ids of our buttons on the wire; never renamed. Where several of a kind stand in one message, each has a
    suffix after a colon, because Slack wants ids to be different there."""

    CONFIRM = "proposal.confirm"
    DISMISS = "proposal.dismiss"
    PICK = "ask.pick"


_ID_LENGTH = 64
_INSTANCE_LENGTH = 200
_CHOICES: dict[str, Choice] = {ActionId.CONFIRM: Choice.CONFIRM, ActionId.DISMISS: Choice.DISMISS}


def asked(admitted: Admitted, operations: Operations, *, delivery_id: str, now: datetime) -> Delivery | Notice:
    """The delivery of a slash command, or what to tell the person who typed it."""
    body = admitted.body
    content = parse(_text(body, "text"), operations)
    if isinstance(content, Notice):
        return content
    return Delivery(delivery_id, admitted.key, replying_to(admitted), now, content)


def clicked(admitted: Admitted, *, delivery_id: str, now: datetime) -> Delivery | None:
    """The delivery of a click on one of our buttons; None if it is none of them."""
    body = admitted.body
    actions = body.get("actions")
    action = actions[0] if isinstance(actions, list) and actions and isinstance(actions[0], dict) else {}
    content = _content(_text(action, "action_id").partition(":")[0], _text(action, "value"))
    return Delivery(delivery_id, admitted.key, replying_to(admitted), now, content) if content is not None else None


def _content(action_id: str, value: str) -> Click | Pick | None:
    """A click holds the id of an offer, a pick the delivery of the ask and the name of an instance."""
    if action_id == ActionId.PICK:
        asked_in, _, instance = value.partition(" ")
        return Pick(asked_in[:_ID_LENGTH], instance[:_INSTANCE_LENGTH]) if asked_in and instance else None
    choice = _CHOICES.get(action_id)
    return Click(choice, value[:_ID_LENGTH]) if choice is not None and value else None


def replying_to(admitted: Admitted) -> ReplyTo:
    """Who sent this, from where, and how to answer that person alone."""
    body = admitted.body
    address = _text(body, "response_url") or None
    if admitted.kind is Kind.COMMAND:
        return ReplyTo(_text(body, "user_id"), _place(_text(body, "channel_id")), address)
    container = _dict(body, "container")
    channel = _text(_dict(body, "channel"), "id") or _text(container, "channel_id")
    place = _place(channel, _text(container, "thread_ts") or None)
    return ReplyTo(_text(_dict(body, "user"), "id"), place, address)


def _place(channel: str, thread: str | None = None) -> Place:
    """A direct message is no channel: only rules without channels match there."""
    return Place(None if not channel or channel.startswith("D") else channel, thread)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _dict(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}
