"""What Slack sends to an app, and how it shows messages, people and channels: pure functions from state to JSON.

Sources: docs.slack.dev "Implementing slash commands", "Handling user interaction", "block_actions payload",
"app_mention event", "Formatting message text"; objects from the Web API reference. Enterprise fields are those of a
workspace outside an enterprise organisation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from bot.sandbox.workspace import SLACKBOT, Channel, File, Message, Person, Usergroup, Workspace

Json = dict[str, Any]

VERIFICATION_TOKEN = "sandbox-verification-token"  # noqa: S105 (deprecated by Slack, still in each delivery; no secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """One thing that a person did: who, where, and the one-off handles that Slack gives the app for it."""

    app_id: str
    person: Person
    channel: Channel
    trigger_id: str
    response_url: str


def command_form(workspace: Workspace, occasion: Occasion, *, command: str, text: str) -> Json:
    """The fields of a slash command; there is no thread among them."""
    return {
        "token": VERIFICATION_TOKEN,
        "team_id": workspace.team_id,
        "team_domain": workspace.domain,
        "channel_id": occasion.channel.id,
        "channel_name": occasion.channel.delivered_name,
        "user_id": occasion.person.id,
        "user_name": occasion.person.handle,
        "command": command,
        "text": text,
        "api_app_id": occasion.app_id,
        "is_enterprise_install": "false",
        "response_url": occasion.response_url,
        "trigger_id": occasion.trigger_id,
    }


def block_actions(
    workspace: Workspace,
    occasion: Occasion,
    *,
    message: Message,
    block_id: str,
    element: Mapping[str, Any],
    action_ts: str,
) -> Json:
    """A click on a button. A message that only one person sees is not in it."""
    container = {
        "type": "message",
        "message_ts": message.ts,
        "channel_id": message.channel,
        "is_ephemeral": message.seen_by is not None,
    }
    if message.thread_ts is not None:
        container["thread_ts"] = message.thread_ts
    payload = _interaction(workspace, occasion, "block_actions") | {
        "container": container,
        "enterprise": None,
        "is_enterprise_install": False,
        "state": {"values": {}},
        "actions": [{**element, "block_id": block_id, "type": "button", "action_ts": action_ts}],
    }
    if message.seen_by is None:
        payload["message"] = message_json(workspace, message)
    return payload


def message_action(
    workspace: Workspace, occasion: Occasion, *, message: Message, callback_id: str, action_ts: str
) -> Json:
    """A message shortcut."""
    return _interaction(workspace, occasion, "message_action") | {
        "callback_id": callback_id,
        "action_ts": action_ts,
        "message_ts": message.ts,
        "message": message_json(workspace, message),
        "enterprise": None,
        "is_enterprise_install": False,
    }


def app_mention(
    workspace: Workspace, *, app_id: str, bot_user: str, message: Message, event_id: str, event_time: int
) -> Json:
    """The Events API's wrapper around a message that mentions the app."""
    person = workspace.people[message.user]
    event = {
        "type": "app_mention",
        "user": message.user,
        "text": message.text,
        "ts": message.ts,
        "team": person.team,
        "channel": message.channel,
        "event_ts": message.ts,
    }
    if message.thread_ts is not None:
        event["thread_ts"] = message.thread_ts
    if person.team != workspace.team_id:
        event["user_team"] = event["source_team"] = person.team
    installed = {
        "enterprise_id": None,
        "team_id": workspace.team_id,
        "user_id": bot_user,
        "is_bot": True,
        "is_enterprise_install": False,
    }
    return {
        "token": VERIFICATION_TOKEN,
        "team_id": workspace.team_id,
        "api_app_id": app_id,
        "event": event,
        "type": "event_callback",
        "event_id": event_id,
        "event_time": event_time,
        "authorizations": [installed],
        "is_ext_shared_channel": bool(workspace.channels[message.channel].shared_with),
        "event_context": f"1-app_mention-{workspace.team_id}-{message.channel}",
    }


def form_body(fields: Mapping[str, Any]) -> bytes:
    return urlencode(fields).encode()


def json_body(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _interaction(workspace: Workspace, occasion: Occasion, kind: str) -> Json:
    """What every interaction says. Somebody from a shared channel comes with the other workspace as `team`."""
    person = occasion.person
    domain = workspace.domain if person.team == workspace.team_id else person.team.lower()
    return {
        "type": kind,
        "user": {"id": person.id, "username": person.handle, "name": person.handle, "team_id": person.team},
        "api_app_id": occasion.app_id,
        "token": VERIFICATION_TOKEN,
        "trigger_id": occasion.trigger_id,
        "team": {"id": person.team, "domain": domain},
        "channel": {"id": occasion.channel.id, "name": occasion.channel.delivered_name},
        "response_url": occasion.response_url,
    }


def escape_typed(workspace: Workspace, text: str) -> str:
    """What a person typed, as Slack hands it to an app whose command has `should_escape`."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    people = {person.handle: f"<@{person.id}>" for person in workspace.people.values()}
    groups = {group.handle: f"<!subteam^{group.id}>" for group in workspace.usergroups.values()}
    channels = {
        channel.name: f"<#{channel.id}|{'' if channel.is_private else channel.name}>"
        for channel in workspace.channels.values()
        if not channel.is_direct
    }
    escaped = re.sub(r"(?<!\S)@([\w.-]+)", lambda m: people.get(m[1]) or groups.get(m[1]) or m[0], escaped)
    escaped = re.sub(r"(?<!\S)#([\w-]+)", lambda m: channels.get(m[1], m[0]), escaped)
    return re.sub(r"(?<!\S)https?://\S+", lambda m: f"<{m[0]}>", escaped)


def message_json(workspace: Workspace, message: Message) -> Json:
    """A message as Slack shows it in answers and deliveries."""
    shown: Json = {
        "type": "message",
        "user": message.user,
        "ts": message.ts,
        "text": message.text,
        "team": workspace.people[message.user].team,
    }
    if message.bot_id is not None:
        shown["bot_id"] = message.bot_id
    if message.blocks:
        shown["blocks"] = list(message.blocks)
    if message.files:
        shown |= {"files": [file_json(file) for file in message.files], "upload": True, "subtype": "file_share"}
    if message.is_broadcast:
        shown["subtype"] = "thread_broadcast"
    if message.edited_ts is not None:
        shown["edited"] = {"user": message.user, "ts": message.edited_ts}
    if message.metadata is not None:
        shown["metadata"] = message.metadata
    replies = 0 if message.thread_ts or message.seen_by else len(workspace.messages(message.channel, message.ts)) - 1
    if message.thread_ts is not None:
        shown["thread_ts"] = message.thread_ts
    elif replies > 0:
        shown |= {"thread_ts": message.ts, "reply_count": replies}
    if message.seen_by is not None:
        shown |= {"channel": message.channel, "is_ephemeral": True}
    return shown


def file_json(file: File) -> Json:
    """A file as messages show it. Its addresses are paths on this fake, which does not know its own host."""
    address = f"/files/{file.id}/{quote(re.sub(r'[^0-9A-Za-z._-]+', '_', file.name)[-100:])}"
    shown: Json = {
        "id": file.id,
        "created": file.created,
        "timestamp": file.created,
        "name": file.name,
        "title": file.title,
        "mimetype": file.mimetype,
        "filetype": file.name.rpartition(".")[2].lower() if "." in file.name else "",
        "size": file.size,
        "mode": "hosted",
        "user": file.user,
        "url_private": address,
        "url_private_download": f"{address}?download",
    }
    if file.alt_text:
        shown["alt_txt"] = file.alt_text
    if file.width is not None:
        shown |= {"original_w": file.width, "original_h": file.height}
    return shown


def user_json(person: Person, *, team_id: str) -> Json:
    is_bot = person.bot_id is not None
    return {
        "id": person.id,
        "team_id": person.team,
        "name": person.handle,
        "real_name": person.name,
        "deleted": person.is_deactivated,
        "tz": "Asia/Shanghai",
        "profile": {"real_name": person.name, "display_name": person.handle, "team": person.team},
        "is_admin": False,
        "is_owner": False,
        "is_primary_owner": False,
        "is_restricted": person.is_guest,
        "is_ultra_restricted": False,
        "is_stranger": False,
        "is_foreign": person.team != team_id,
        "is_bot": is_bot and person.id != SLACKBOT,
        "is_app_user": False,
        "is_workflow_bot": False,
        "is_invited_user": False,
    }


def channel_json(channel: Channel, *, team_id: str, bot_user: str) -> Json:
    is_shared = bool(channel.shared_with)
    if channel.is_direct:
        other = next((member for member in sorted(channel.members) if member != bot_user), bot_user)
        return {"id": channel.id, "is_im": True, "user": other, "is_archived": False, "context_team_id": team_id}
    return {
        "id": channel.id,
        "name": channel.name,
        "name_normalized": channel.name,
        "is_channel": True,
        "is_group": False,
        "is_im": False,
        "is_mpim": False,
        "is_private": channel.is_private,
        "is_archived": channel.is_archived,
        "is_frozen": False,
        "is_general": channel.name == "general",
        "is_member": bot_user in channel.members,
        "is_shared": is_shared,
        "is_ext_shared": is_shared,
        "is_org_shared": False,
        "is_pending_ext_shared": False,
        "shared_team_ids": [team_id, *channel.shared_with],
        "connected_team_ids": list(channel.shared_with),
        "conversation_host_id": team_id,
        "context_team_id": team_id,
        "topic": {"value": channel.topic, "creator": "", "last_set": 0},
        "purpose": {"value": "", "creator": "", "last_set": 0},
    }


def usergroup_json(group: Usergroup, *, team_id: str) -> Json:
    return {
        "id": group.id,
        "team_id": team_id,
        "is_usergroup": True,
        "is_subteam": True,
        "name": group.name,
        "handle": group.handle,
        "description": "",
        "is_external": False,
        "date_delete": 0,
    }
