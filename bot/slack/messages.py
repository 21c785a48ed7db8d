"""Messages to Slack: posted, updated, or told to one person; each call is one attempt, at Slack's pace.

What may be tried again and what Slack refuses for good is told apart here, and nowhere else. What it does not do:
decide what is said, or wait.

https://docs.slack.dev/reference/methods/chat.postMessage · …/chat.update · …/chat.postEphemeral
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import OtabrakeError
from bot.exchange import ReplyTo
from bot.slack.pace import Pace
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.views import Message

_NO_WAY_IN = (
    "channel_not_found",
    "not_in_channel",
    "is_archived",
    "is_inactive",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
    "ekm_access_denied",
    "cannot_reply_to_message",
)
_DELETED = ("message_not_found", "thread_not_found")
_PASSING = ("internal_error", "fatal_error", "ratelimited", "request_timeout", "service_unavailable", "http_200")
_UPDATES = "chat.update"
_RESPONSE_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


class Undeliverable(OtabrakeError):
    """Slack refuses this post for good; the text is its error code."""


class Deleted(Undeliverable):
    """The message, or the one it hangs from, is not there any more: somebody has deleted it."""


class Messages:
    """What the bot says. Raises `Undeliverable`, and whatever else goes wrong on the way (`people.SLACK_TROUBLE`)."""

    def __init__(self, client: AsyncWebClient, session: aiohttp.ClientSession, pace: Pace) -> None:
        self._client = client
        self._session = session
        self._pace = pace

    async def post(
        self, channel: str | None, message: Message, thread: str | None = None, *, is_broadcast: bool = False
    ) -> str:
        """The message's `ts`."""
        if channel is None:
            raise Undeliverable("no channel")
        extra: dict[str, Any] = {"thread_ts": thread, "reply_broadcast": is_broadcast} if thread else {}
        await self._pace.turn(channel)
        with self._refusals(channel):
            answer = await self._client.chat_postMessage(
                channel=channel,
                text=message.text,
                blocks=list(message.blocks),
                unfurl_links=False,
                unfurl_media=False,
                **extra,
            )
        return str(answer["ts"])

    async def update(self, channel: str | None, ts: str | None, message: Message) -> None:
        await self._pace.opening(_UPDATES)
        with self._refusals(_UPDATES):
            await self._client.chat_update(
                channel=channel or "", ts=ts or "", text=message.text, blocks=list(message.blocks), parse="none"
            )

    async def open_direct(self, user_id: str) -> str:
        """The channel of direct messages with one person."""
        try:
            answer = await self._client.conversations_open(users=user_id)
        except SlackApiError as error:
            if may_pass(error):
                raise
            raise Undeliverable(error_code(error)) from error
        return str(answer["channel"]["id"])

    async def find_link(self, channel: str, ts: str) -> str | None:
        """Where people can open a message; None if Slack does not tell."""
        try:
            answer = await self._client.chat_getPermalink(channel=channel, message_ts=ts)
        except SLACK_TROUBLE:
            return None
        link = answer.get("permalink")
        return link if isinstance(link, str) and link.startswith("https://") else None

    @contextlib.contextmanager
    def _refusals(self, key: str) -> Iterator[None]:
        """What Slack refuses for good is told apart; where it asks for a pause, everybody here keeps it."""
        try:
            yield
        except SlackApiError as error:
            if (code := error_code(error)) in _NO_WAY_IN:
                raise Undeliverable(code) from error
            if code in _DELETED:
                raise Deleted(code) from error
            if (seconds := retry_after(error)) is not None:
                self._pace.close(key, seconds)
            raise

    async def reply(self, to: ReplyTo, message: Message) -> None:
        """By the response_url while it works, else as an ephemeral message where it was asked."""
        if to.address is not None and self._is_slacks(to.address):
            body = {
                "response_type": "ephemeral",
                "replace_original": False,
                "text": message.text,
                "blocks": list(message.blocks),
            }
            async with self._session.post(to.address, json=body) as answer:
                if answer.status == 200:
                    return
        if to.place.channel is None:
            raise Undeliverable("no way to reply")
        try:
            await self._client.chat_postEphemeral(
                channel=to.place.channel, user=to.user_id, text=message.text, blocks=list(message.blocks)
            )
        except SlackApiError as error:
            if (code := error_code(error)) in (*_NO_WAY_IN, "user_not_in_channel"):
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
