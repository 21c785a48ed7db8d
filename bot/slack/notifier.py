"""Delivers what is owed to people: reads the outbox and posts, in order within a lane, until each post is settled.

A proposal has one root card in the channel and one button message in its thread. Both are made true from the proposal
as it stands when they are sent, so a repeated attempt never shows an old state. The button message is posted as text,
and given its buttons by an update: a post whose answer was lost can be repeated without making live buttons twice.
What it does not do: decide what is owed, or retry what Slack refuses for good.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import OtabrakeError, StoreUnavailable
from bot.exchange import Post, PostKind, ReplyTo
from bot.model import Instance
from bot.operations import Operations
from bot.ports import Owed, Store, Surface
from bot.proposals import Proposal, State
from bot.slack import views
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.views import Message
from bot.workflow.means import Log
from bot.workflow.reports import stands_elsewhere

LONGEST_PAUSE_SECONDS = 30.0
BROKEN_ATTEMPTS = 8
"""So often a post is tried that fails for a reason of our own; Slack's own troubles are waited out."""
_NO_WAY_IN = ("channel_not_found", "not_in_channel", "is_archived", "restricted_action")
_PASSING = ("internal_error", "fatal_error", "ratelimited", "request_timeout", "service_unavailable", "http_200")
_RESPONSE_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


class Undeliverable(OtabrakeError):
    """Slack refuses this post for good; the text is its error code."""


class SlackNotifier:
    """`ports.Notifier`. Use as a context: its task runs as long as the block."""

    def __init__(
        self,
        client: AsyncWebClient,
        session: aiohttp.ClientSession,
        *,
        store: Store,
        operations: Operations,
        instance: Callable[[str], Instance | None],
        log: Log,
        unshown: Callable[[str, str], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._session = session
        self._store = store
        self._operations = operations
        self._instance = instance
        self._log = log
        self._unshown = unshown
        self._sleep = sleep
        self._owing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._replies: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SlackNotifier:
        self._owing.set()
        self._task = asyncio.create_task(self._run(), name="outbox")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = [*self._lanes.values(), *self._replies, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        self._owing.set()

    def tell(self, to: ReplyTo, message: Message) -> None:
        """Tells one person something that is owed to nobody by the store; if Slack refuses, the log has it."""
        task = asyncio.create_task(self._try_reply(to, message))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _try_reply(self, to: ReplyTo, message: Message) -> None:
        try:
            await self._reply(to, message)
        except (Undeliverable, *SLACK_TROUBLE) as error:
            self._log.error("reply lost", actor=to.user_id, why=type(error).__name__)

    async def drain(self) -> None:
        """Waits until nothing is owed any more."""
        while True:
            await self._start_lanes()
            under_way = [*self._lanes.values(), *self._replies]
            if not under_way:
                return
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._owing.wait(), timeout=1)
            self._owing.clear()
            try:
                await self._start_lanes()
            except StoreUnavailable as error:
                self._log.error("outbox interrupted", why=str(error))
            except Exception as error:  # without this task nobody is told anything any more
                self._log.error("outbox failed", exc_info=error)

    async def _start_lanes(self) -> None:
        lanes: dict[str, list[Owed]] = defaultdict(list)
        for owed in await self._store.fetch_owed():
            lanes[owed.post.lane].append(owed)
        for lane, posts in lanes.items():
            if lane not in self._lanes:
                task = asyncio.create_task(self._deliver_lane(posts), name=f"lane {lane}")
                self._lanes[lane] = task
                task.add_done_callback(partial(self._lane_ended, lane))

    def _lane_ended(self, lane: str, task: asyncio.Task[None]) -> None:
        self._lanes.pop(lane, None)

    async def _deliver_lane(self, posts: Sequence[Owed]) -> None:
        for position, owed in enumerate(posts):
            later = {each.post.kind for each in posts[position + 1 :]}
            is_overtaken = owed.post.kind in (PostKind.CARD, PostKind.BUTTONS) and owed.post.kind in later
            surface = Surface()
            if is_overtaken:
                surface = await self._store.fetch_surface(owed.post.lane)
            if is_overtaken and surface.card is not None:
                await self._store.settle([owed.post_id])
                continue
            if not await self._settle(owed):
                return
        self._owing.set()

    async def _settle(self, owed: Owed) -> bool:
        """True if this post needs no further attempt; else the lane waits and starts again here."""
        try:
            await self._deliver(owed)
        except Undeliverable as error:
            await self._give_up(owed, str(error))
        except StoreUnavailable as error:
            self._log.error("outbox interrupted", why=str(error))
            return False
        except SLACK_TROUBLE as error:
            if not isinstance(error, SlackApiError) or _may_pass(error):
                return await self._put_off(owed, error)
            await self._give_up(owed, error_code(error))
        except Exception as error:  # a post of our own making that cannot be sent must not block its lane
            self._log.error("post failed", lane=owed.post.lane, kind=owed.post.kind.value, exc_info=error)
            if owed.attempts + 1 < BROKEN_ATTEMPTS:
                return await self._put_off(owed, error)
            await self._give_up(owed, type(error).__name__)
        else:
            await self._store.settle([owed.post_id])
        return True

    async def _give_up(self, owed: Owed, why: str) -> None:
        """A visible record of what could not be delivered; a card that can stand nowhere ends its proposal."""
        self._log.error("post given up", lane=owed.post.lane, kind=owed.post.kind.value, why=why)
        await self._store.settle([owed.post_id], failure=why)
        if owed.post.kind is PostKind.CARD:
            await self._unshown(owed.post.lane, why)

    async def _put_off(self, owed: Owed, error: BaseException) -> bool:
        """Slack is busy or away: the lane waits, however long that takes."""
        pause = min(2.0 ** min(owed.attempts, 6) * 0.5, LONGEST_PAUSE_SECONDS)
        why = type(error).__name__
        if isinstance(error, SlackApiError):
            why, pause = error_code(error), _retry_after(error) or pause
        self._log.error("post put off", lane=owed.post.lane, kind=owed.post.kind.value, why=why, seconds=pause)
        await self._store.count_attempt(owed.post_id)
        await self._sleep(pause)
        self._owing.set()
        return False

    async def _deliver(self, owed: Owed) -> None:
        post = owed.post
        if post.kind is PostKind.REPLY:
            if post.reply_to is None:
                raise Undeliverable("no address")
            await self._reply(post.reply_to, views.reply(post))
            return
        proposal = await self._store.fetch_proposal(post.lane)
        if proposal is None:
            raise Undeliverable("no such proposal")
        if post.kind is PostKind.CARD:
            await self._show_card(proposal)
        elif post.kind is PostKind.BUTTONS:
            await self._show_buttons(proposal)
        elif post.notice is not None:
            surface = await self._card(proposal)
            is_broadcast = post.kind is PostKind.BROADCAST
            operation = self._operations[proposal.operation]
            message = views.broadcast(post.notice, proposal, operation) if is_broadcast else views.line(post.notice)
            await self._post(surface.channel, message, surface.card, is_broadcast=is_broadcast)

    async def _show_card(self, proposal: Proposal) -> None:
        surface = await self._store.fetch_surface(proposal.proposal_id)
        if surface.card is None:
            await self._card(proposal)
        else:
            await self._update(surface, surface.card, views.card(proposal, self._operations[proposal.operation]))

    async def _card(self, proposal: Proposal) -> Surface:
        """The surface with its root card; posts the card if it does not stand yet."""
        surface = await self._store.fetch_surface(proposal.proposal_id)
        if surface.card is not None:
            return surface
        message = views.card(proposal, self._operations[proposal.operation])
        instance = self._instance(proposal.target.instance)
        channel, fallback = proposal.place.channel, instance.channel if instance is not None else None
        try:
            posted = await self._post(channel, message)
        except Undeliverable:
            if fallback is None or fallback == channel:
                raise
            channel, posted = fallback, await self._post(fallback, message)
            notice = stands_elsewhere(proposal.target.instance)
            pointer = Post(PostKind.REPLY, f"pointer {proposal.proposal_id}"[:64], notice, proposal.reply_to)
            await self._store.record(posts=(pointer,))
        surface = replace(surface, channel=channel, card=posted)
        await self._store.save_surface(proposal.proposal_id, surface)
        return surface

    async def _show_buttons(self, proposal: Proposal) -> None:
        surface = await self._card(proposal)
        operation = self._operations[proposal.operation]
        if surface.buttons is None:
            posted = await self._post(surface.channel, views.no_buttons(proposal, operation), surface.card)
            surface = replace(surface, buttons=posted)
            await self._store.save_surface(proposal.proposal_id, surface)
        is_waiting = proposal.state is State.OFFERED
        message = (views.ask_for_yes if is_waiting else views.no_buttons)(proposal, operation)
        await self._update(surface, surface.buttons, message)

    async def _post(
        self, channel: str | None, message: Message, thread: str | None = None, *, is_broadcast: bool = False
    ) -> str:
        if channel is None:
            raise Undeliverable("no channel")
        extra: dict[str, Any] = {"thread_ts": thread, "reply_broadcast": is_broadcast} if thread else {}
        try:
            answer = await self._client.chat_postMessage(
                channel=channel,
                text=message.text,
                blocks=list(message.blocks),
                unfurl_links=False,
                unfurl_media=False,
                **extra,
            )
        except SlackApiError as error:
            if (code := error_code(error)) in _NO_WAY_IN:
                raise Undeliverable(code) from error
            raise
        return str(answer["ts"])

    async def _update(self, surface: Surface, ts: str | None, message: Message) -> None:
        await self._client.chat_update(
            channel=surface.channel or "", ts=ts or "", text=message.text, blocks=list(message.blocks), parse="none"
        )

    async def _reply(self, to: ReplyTo, message: Message) -> None:
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


def _may_pass(error: SlackApiError) -> bool:
    return error.response.status_code != 200 or error_code(error) in _PASSING


def _retry_after(error: SlackApiError) -> float | None:
    value = error.response.headers.get("Retry-After") if error.response.status_code == 429 else None
    return float(value) if value is not None and str(value).isdigit() else None
