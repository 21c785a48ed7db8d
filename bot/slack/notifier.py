"""Delivers what is owed to people: reads the outbox and posts, in order within a lane, until each post is settled.

Cards, buttons and progress are made true from the proposal as it stands when they are sent (`surfaces`), lines are
added, files are made and sent (`attachments`). What it does not do: decide what is owed, or retry what Slack refuses
for good.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import StoreUnavailable
from bot.exchange import Post, PostKind, ReplyTo
from bot.model import Instance, Notice
from bot.operations import Operations
from bot.ports import Owed, Store, Surface
from bot.slack import views
from bot.slack.attachments import Attachments, NotSent, in_direct_messages
from bot.slack.messages import Messages, Undeliverable, may_pass, retry_after
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.surfaces import Surfaces
from bot.slack.views import Message
from bot.workflow.means import Log

LONGEST_PAUSE_SECONDS = 30.0
BROKEN_ATTEMPTS = 8
"""So often a post is tried that fails for a reason of our own; Slack's own troubles are waited out."""

BROKEN_FILE_ATTEMPTS = 2
_MADE_TRUE = (PostKind.CARD, PostKind.BUTTONS, PostKind.PROGRESS)


class SlackNotifier:
    """`ports.Notifier`. Use as a context: its task runs as long as the block."""

    def __init__(
        self,
        client: AsyncWebClient,
        session: aiohttp.ClientSession,
        *,
        store: Store,
        operations: Operations,
        attachments: Attachments,
        instance: Callable[[str], Instance | None],
        log: Log,
        unshown: Callable[[str, str], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._messages = Messages(client, session)
        self._surfaces = Surfaces(self._messages, store=store, operations=operations, instance=instance, log=log)
        self._attachments = attachments
        self._store = store
        self._operations = operations
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
            await self._messages.reply(to, message)
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
                async with asyncio.timeout(1):
                    await self._owing.wait()
            self._owing.clear()
            try:
                await self._start_lanes()
            except StoreUnavailable as error:
                self._log.error("outbox interrupted", why=str(error))
            except Exception as error:  # without this task nobody is told anything any more
                self._log.error("outbox failed", exc_info=error)

    async def _start_lanes(self) -> None:
        lanes: dict[str, list[Owed]] = defaultdict(list)
        for owed in await self._store.fetch_owed(but=tuple(self._lanes)):
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
            is_overtaken = owed.post.kind in _MADE_TRUE and owed.post.kind in later
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
            await self._deliver(owed.post)
        except NotSent as error:
            await self._say_instead(owed, error.notice, why=error.why)
        except Undeliverable as error:
            await self._give_up(owed, str(error))
        except StoreUnavailable as error:
            self._log.error("outbox interrupted", why=str(error))
            return False
        except SLACK_TROUBLE as error:
            if may_pass(error):
                return await self._put_off(owed, error)
            await self._give_up(owed, error_code(error) if isinstance(error, SlackApiError) else type(error).__name__)
        except Exception as error:  # a post of our own making that cannot be sent must not block its lane
            self._log.error("post failed", lane=owed.post.lane, kind=owed.post.kind.value, exc_info=error)
            most = BROKEN_FILE_ATTEMPTS if owed.post.kind is PostKind.FILE else BROKEN_ATTEMPTS
            if owed.attempts + 1 < most:
                return await self._put_off(owed, error)
            await self._give_up(owed, type(error).__name__)
        else:
            await self._store.settle([owed.post_id])
        return True

    async def _give_up(self, owed: Owed, why: str) -> None:
        """A visible record of what could not be delivered; a card that can stand nowhere ends its proposal."""
        self._log.error("post given up", lane=owed.post.lane, kind=owed.post.kind.value, why=why)
        if owed.post.kind is PostKind.FILE:
            await self._say_instead(owed, Notice(f"A file belongs here that I could not send ({why})."), why=why)
            return
        await self._store.settle([owed.post_id], failure=why)
        if owed.post.kind is PostKind.CARD:
            await self._unshown(owed.post.lane, why)

    async def _say_instead(self, owed: Owed, notice: Notice, *, why: str) -> None:
        """Whoever waits for a file is told that it will not come, where it would have been."""
        post = owed.post
        kind = PostKind.LINE if post.reply_to is None else PostKind.REPLY
        self._log.error("file not sent", lane=post.lane, why=why)
        await self._store.record(posts=(Post(kind, post.lane, notice, post.reply_to),))
        await self._store.settle([owed.post_id], failure=why[:200])

    async def _put_off(self, owed: Owed, error: BaseException) -> bool:
        """Slack is busy or away: the lane waits, however long that takes."""
        pause = retry_after(error) or min(2.0 ** min(owed.attempts, 6) * 0.5, LONGEST_PAUSE_SECONDS)
        why = error_code(error) if isinstance(error, SlackApiError) else type(error).__name__
        self._log.error("post put off", lane=owed.post.lane, kind=owed.post.kind.value, why=why, seconds=pause)
        await self._store.count_attempt(owed.post_id)
        await self._sleep(pause)
        self._owing.set()
        return False

    async def _deliver(self, post: Post) -> None:
        if post.kind is not PostKind.REPLY and post.reply_to is None:
            await self._deliver_to_all(post)
        elif post.reply_to is not None:
            await self._deliver_to_one(post, post.reply_to)
        else:
            raise Undeliverable("no address")

    async def _deliver_to_one(self, post: Post, to: ReplyTo) -> None:
        if post.file is None:
            await self._messages.reply(to, views.reply(post))
        elif await self._attachments.send_to(to.user_id, post.file):
            await self._store.record(posts=(Post(PostKind.REPLY, post.lane, in_direct_messages(), to),))

    async def _deliver_to_all(self, post: Post) -> None:
        proposal = await self._store.fetch_proposal(post.lane)
        if proposal is None:
            raise Undeliverable("no such proposal")
        if post.kind is PostKind.CARD:
            await self._surfaces.show_card(proposal)
        elif post.kind is PostKind.BUTTONS:
            await self._surfaces.show_buttons(proposal)
        elif post.kind is PostKind.PROGRESS:
            await self._surfaces.show_progress(proposal)
        elif post.file is not None:
            surface = await self._surfaces.stand(proposal)
            await self._attachments.send(post.file, surface.channel or "", thread=surface.card, about=proposal)
        elif post.notice is not None:
            surface = await self._surfaces.stand(proposal)
            is_broadcast = post.kind is PostKind.BROADCAST
            operation = self._operations[proposal.operation]
            message = views.broadcast(post.notice, proposal, operation) if is_broadcast else views.line(post.notice)
            await self._messages.post(surface.channel, message, surface.card, is_broadcast=is_broadcast)
