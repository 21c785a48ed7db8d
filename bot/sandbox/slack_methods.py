"""The Web API methods that the bot calls, but for those of files: what each does to the workspace, and its answer.

Token, scope and arguments were checked before (`slack_api`); place and content are checked here.
Sources: docs.slack.dev, "Web API methods", each page.
"""

from __future__ import annotations

from collections.abc import Mapping

from bot.sandbox.slack_api import Arguments, Method, Refused, WebApi, content_of
from bot.sandbox.slack_blocks import with_ids
from bot.sandbox.slack_payloads import Json, channel_json, user_json, usergroup_json
from bot.sandbox.workspace import SLACKBOT

MAX_UPDATE_TEXT = 4_000


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
    if thread:
        api.thread_root(channel, thread)
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
        raise Refused("is_inactive")
    text, blocks = content_of(arguments, max_text=MAX_UPDATE_TEXT)
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


def _get_permalink(api: WebApi, arguments: Arguments) -> Json:
    channel = api.visible_channel(arguments["channel"])
    message = api.workspace.find(channel.id, arguments["message_ts"])
    if message is None or message.seen_by is not None:
        raise Refused("message_not_found")
    link = f"https://{api.workspace.domain}.slack.com/archives/{channel.id}/p{message.ts.replace('.', '')}"
    if message.thread_ts is not None:
        link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
    return {"channel": channel.id, "permalink": link}


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


def _conversations_open(api: WebApi, arguments: Arguments) -> Json:
    """A direct message with one person; several at once need another scope and are not modelled."""
    users = [user.strip() for user in arguments["users"].split(",") if user.strip()]
    if not users:
        raise Refused("users_list_not_supplied")
    if len(users) > 1:
        raise Refused("missing_scope", needed="mpim:write", provided=",".join(sorted(api.app.scopes)))
    person = api.workspace.people.get(users[0])
    if person is None:
        raise Refused("user_not_found")
    if person.is_deactivated:
        raise Refused("user_disabled")
    if person.bot_id is not None or person.id == SLACKBOT:
        raise Refused("cannot_dm_bot")
    there = api.workspace.direct_channel(person.id, api.app.bot_user)
    direct = there or api.workspace.open_direct(person.id, api.app.bot_user)
    shown = channel_json(direct, team_id=api.workspace.team_id, bot_user=api.app.bot_user)
    known = {} if there is None else {"no_op": True, "already_open": True}
    return known | {"channel": shown if arguments.get("return_im") else {"id": direct.id}}


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
    "chat.getPermalink": Method(
        carry_out=_get_permalink,
        takes={"channel": "string", "message_ts": "string"},
        needs=("channel", "message_ts"),
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
    "conversations.open": Method(
        carry_out=_conversations_open,
        takes={"users": "string", "return_im": "boolean"},
        needs=("users",),
        scopes=("im:write",),
    ),
    "apps.connections.open": Method(carry_out=_connections_open, wants_app_token=True),
}
