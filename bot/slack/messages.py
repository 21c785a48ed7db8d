"""Messages to Slack: posted, updated, or told to one person; each call is one attempt, made when its turn comes.

What may be tried again, what stands no more and what Slack refuses for good is told apart here, and nowhere else. What
it does not do: decide what is said or where else, or try again.

https://docs.slack.dev/reference/methods/chat.postMessage · …/chat.update · …/chat.postEphemeral ·
…/chat.getPermalink · …/conversations.open
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.errors import OtabrakeError
from bot.exchange import ReplyTo
from bot.slack.pace import Method, Pace, Urgency
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.views import Message

_NO_WAY_IN = frozenset(
    {
        "access_denied",
        "cannot_dm_bot",
        "channel_not_found",
        "ekm_access_denied",
        "is_archived",
        "is_inactive",
        "messages_tab_disabled",
        "missing_scope",
        "no_permission",
        "not_in_channel",
        "user_disabled",
        "user_not_found",
        "user_not_in_channel",
        "user_not_visible",
    }
)
_NO_THREAD = frozenset(
    {"cannot_reply_to_message", "message_not_found", "restricted_action_thread_locked", "thread_not_found"}
)
_NO_MESSAGE = frozenset({"cant_update_message", "message_not_found"})
_THROTTLED = ("ratelimited", "rate_limited")
_PASSING = (
    *_THROTTLED,
    "external_channel_migrating",
    "fatal_error",
    "http_200",
    "internal_error",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
)
_RESPONSE_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_LONGEST_LINK = 2000


class Undeliverable(OtabrakeError):
    """Slack refuses this post for good, in this place; the text is its error code."""


class Gone(Undeliverable):
    """The message, or the one whose thread it belongs to, stands no more, or takes nothing any more."""

    @property
    def is_deleted(self) -> bool:
        """It stands no more; else it may be seen still, and clicked."""
        return str(self) == "message_not_found"


class Messages:
    """What the bot says. Raises `Undeliverable`, and whatever else goes wrong on the way (`people.SLACK_TROUBLE`)."""

    def __init__(self, client: AsyncWebClient, session: aiohttp.ClientSession, pace: Pace) -> None:
        self._client = client
        self._session = session
        self._pace = pace

    async def post(
        self,
        channel: str | None,
        message: Message,
        thread: str | None = None,
        *,
        urgency: Urgency = Urgency.SOON,
        is_broadcast: bool = False,
    ) -> str:
        """The message's `ts`. Raises `Gone` if the thread takes it no more, and `NoSpareTurn`."""
        if channel is None:
            raise Undeliverable("no channel")
        extra: dict[str, Any] = {"thread_ts": thread, "reply_broadcast": is_broadcast} if thread else {}
        await self._pace.turn(Method.POST, channel, urgency)
        answer = await self._called(
            self._client.chat_postMessage(
                channel=channel,
                text=message.text,
                blocks=list(message.blocks),
                unfurl_links=False,
                unfurl_media=False,
                **extra,
            ),
            Method.POST,
            gone=_NO_THREAD if thread else (),
        )
        return str(answer["ts"])

    async def update(
        self, channel: str | None, ts: str | None, draw: Callable[[], Awaitable[Message]], *, urgency: Urgency
    ) -> None:
        """Makes a message what `draw` says when its turn has come. Raises `Gone` if it stands no more."""
        await self._pace.turn(Method.UPDATE, channel or "", urgency)
        message = await draw()
        update = self._client.chat_update(
            channel=channel or "", ts=ts or "", text=message.text, blocks=list(message.blocks), parse="none"
        )
        await self._called(update, Method.UPDATE, gone=_NO_MESSAGE)

    async def reply(self, to: ReplyTo, message: Message) -> None:
        """By the response_url while it works, else as an ephemeral message where it was asked, else directly."""
        if to.address is not None and self._is_slacks(to.address) and await self._answered(to.address, message):
            return
        try:
            await self._whisper(to, message)
        except Undeliverable as first:
            try:
                await self.post(await self.open_direct(to.user_id), message)
            except Undeliverable:
                raise first from None

    async def _answered(self, address: str, message: Message) -> bool:
        body = {
            "response_type": "ephemeral",
            "replace_original": False,
            "text": message.text,
            "blocks": list(message.blocks),
        }
        try:
            async with self._session.post(address, json=body) as answer:
                return answer.status == 200
        except SLACK_TROUBLE:  # there is another way; said twice is better than not at all
            return False

    async def _whisper(self, to: ReplyTo, message: Message) -> None:
        channel = to.place.channel
        if channel is None:
            raise Undeliverable("no channel")
        await self._pace.turn(Method.EPHEMERAL, channel, Urgency.SOON)
        whisper = self._client.chat_postEphemeral(
            channel=channel, user=to.user_id, text=message.text, blocks=list(message.blocks)
        )
        await self._called(whisper, Method.EPHEMERAL)

    async def open_direct(self, user_id: str) -> str:
        """The conversation of the bot and one person."""
        answer = await self._called(self._client.conversations_open(users=user_id))
        return str(answer["channel"]["id"])

    async def fetch_link(self, channel: str | None, ts: str | None) -> str | None:
        """An address that leads to a message; None if Slack does not tell it now. Never a reason to say nothing."""
        if channel is None or ts is None:
            return None
        try:
            answer = await self._client.chat_getPermalink(channel=channel, message_ts=ts)
        except SLACK_TROUBLE:
            return None
        link = answer.get("permalink")
        is_one = isinstance(link, str) and link.startswith("https://") and len(link) <= _LONGEST_LINK
        return link if is_one else None

    async def _called(
        self,
        call: Awaitable[AsyncSlackResponse],
        method: Method | None = None,
        *,
        gone: frozenset[str] | tuple[str, ...] = (),
    ) -> AsyncSlackResponse:
        try:
            return await call
        except SlackApiError as error:
            code = error_code(error)
            if method is not None and (error.response.status_code == 429 or code in _THROTTLED):
                self._pace.rest(method, retry_after(error) or 1.0)
            if code in gone:
                raise Gone(code) from error
            if code in _NO_WAY_IN or code.startswith("restricted_action"):
                raise Undeliverable(code) from error
            raise

    def _is_slacks(self, address: str) -> bool:
        """A response_url must lead to Slack (or to the API that we were told to use)."""
        try:
            parts = urlsplit(address)
        except ValueError:
            return False
        own = urlsplit(self._client.base_url)
        return (parts.scheme == "https" and parts.hostname in _RESPONSE_HOSTS) or (
            (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
        )


def may_pass(error: BaseException) -> bool:
    """Whether the same post may be taken later."""
    if not isinstance(error, SlackApiError):
        return True
    return error.response.status_code != 200 or error_code(error) in _PASSING


def retry_after(error: BaseException) -> float | None:
    """The pause that Slack asks for."""
    if not isinstance(error, SlackApiError) or error.response.status_code != 429:
        return None
    value = error.response.headers.get("Retry-After")
    return float(value) if value is not None and str(value).isdigit() else None
