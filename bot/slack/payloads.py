"""Slack's payloads as the core's values. Pure; names and texts in a payload are never trusted as identity."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from bot.exchange import Choice, Click, Delivery, ReplyTo
from bot.model import Notice, Place
from bot.operations import Operations
from bot.slack.gate import Admitted, Kind
from bot.slack.grammar import parse


class ActionId(StrEnum):
    """The ids of our buttons on the wire; never renamed."""

    CONFIRM = "proposal.confirm"
    DISMISS = "proposal.dismiss"


_CHOICES = {ActionId.CONFIRM: Choice.CONFIRM, ActionId.DISMISS: Choice.DISMISS}


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
    choice = _CHOICES.get(action.get("action_id", ""))
    offer_id = action.get("value")
    if choice is None or not isinstance(offer_id, str) or not offer_id:
        return None
    return Delivery(delivery_id, admitted.key, replying_to(admitted), now, Click(choice, offer_id[:64]))


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
