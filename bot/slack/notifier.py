"""Delivers what is owed to people: reads the outbox and posts, in order within a lane, until each post is settled.

Cards, buttons and progress are made true from the proposal as it stands when they are sent (`surfaces`), lines are
added, files are made and sent (`attachments`). What it does not do: decide what is owed, or retry what Slack refuses
for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import LeaseLost, StoreUnavailable
from bot.exchange import Post, PostKind, ReplyTo
from bot.model import Instance, Notice, is_from_terminal
from bot.operations import Operations
from bot.ports import Lease, Leases, Owed, OwedLane, Store, Surface
from bot.slack import views
from bot.slack.attachments import Attachments, NotSent, in_direct_messages
from bot.slack.messages import Messages, Undeliverable, may_pass, retry_after
from bot.slack.pace import Pace
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.surfaces import Surfaces
from bot.slack.views import Message
from bot.workflow.means import Log
from bot.workflow.tasks import LeasedTasks

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
        leases: Leases,
        operations: Operations,
        attachments: Attachments,
        instance: Callable[[str], Instance | None],
        log: Log,
        unshown: Callable[[str, str], Awaitable[None]],
        moved: Callable[[str], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages = Messages(client, session, Pace(now=seconds, sleep=sleep))
        self._surfaces = Surfaces(
            self._messages, store=store, operations=operations, instance=instance, log=log, reoffer=moved
        )
        self._attachments = attachments
        self._store = store
        self._log = log
        self._unshown = unshown
        self._sleep = sleep
        self._owing = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._leases = leases
        self._lanes = LeasedTasks(leases, log)
        self._replies: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SlackNotifier:
        self._owing.set()
        await self._lanes.__aenter__()
        self._task = asyncio.create_task(self._run(), name="outbox")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = [*self._replies, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lanes.__aexit__(*exc_info)

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
            if not self._lanes.names and not self._replies:
                return
            await self._lanes.drain()
            await asyncio.gather(*self._replies, return_exceptions=True)

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
        async with self._claiming:  # what was claimed has been begun when this returns
            for lane in await self._store.claim_lanes():
                self._lanes.start(lane.lease, self._deliver_lane(lane))

    async def _deliver_lane(self, lane: OwedLane) -> None:
        """Delivers what a lane owes. It is given back with its last post, or where one has to wait."""
        for position, owed in enumerate(lane.posts):
            is_last = position + 1 == len(lane.posts)
            later = {each.post.kind for each in lane.posts[position + 1 :]}
            is_overtaken = owed.post.kind in _MADE_TRUE and owed.post.kind in later
            surface = Surface()
            if is_overtaken:
                surface = await self._store.fetch_surface(owed.post.lane)
            if is_overtaken and surface.card is not None:
                is_settled = await self._store.settle(owed, lease=lane.lease)
            elif not self._lanes.is_held(lane.lease.name):
                return  # this process was away: another may have sent it
            else:
                is_settled = await self._settle(owed, lane.lease, is_last=is_last)
            if not is_settled:
                return
        self._owing.set()

    async def _settle(self, owed: Owed, lease: Lease, *, is_last: bool) -> bool:
        """True if this post needs no further attempt; else the lane starts again here, in this process or another."""
        try:
            await self._deliver(owed.post)
        except NotSent as error:
            await self._say_instead(owed, error.notice)
            return await self._written_off(owed, error.why, lease, is_last=is_last)
        except Undeliverable as error:
            return await self._give_up(owed, str(error), lease, is_last=is_last)
        except asyncio.CancelledError:  # another process has the lane: what is shown last must be the truth
            if owed.post.kind in _MADE_TRUE:
                await asyncio.shield(self._mend(owed))
            raise
        except LeaseLost:
            return False
        except StoreUnavailable as error:
            self._log.error("outbox interrupted", why=str(error))
            return False
        except SLACK_TROUBLE as error:
            if may_pass(error):
                return await self._put_off(owed, error, lease)
            why = error_code(error) if isinstance(error, SlackApiError) else type(error).__name__
            return await self._give_up(owed, why, lease, is_last=is_last)
        except Exception as error:  # a post of our own making that cannot be sent must not block its lane
            self._log.error("post failed", lane=owed.post.lane, kind=owed.post.kind.value, exc_info=error)
            most = BROKEN_FILE_ATTEMPTS if owed.post.kind is PostKind.FILE else BROKEN_ATTEMPTS
            if owed.attempts + 1 < most:
                return await self._put_off(owed, error, lease)
            return await self._give_up(owed, type(error).__name__, lease, is_last=is_last)
        if await self._store.settle(owed, lease=lease, is_last=is_last):
            return True
        await self._mend(owed)
        return False

    async def _mend(self, owed: Owed) -> None:
        """This process was away for so long that another sends this lane: what we showed last may be an old state."""
        self._log.error("lane lost", lane=owed.post.lane, kind=owed.post.kind.value)
        if owed.post.kind in _MADE_TRUE:
            await self._store.record(posts=(Post(owed.post.kind, owed.post.lane),))

    async def _written_off(self, owed: Owed, why: str, lease: Lease, *, is_last: bool) -> bool:
        return await self._store.settle(owed, failure=why[:200], lease=lease, is_last=is_last)

    async def _give_up(self, owed: Owed, why: str, lease: Lease, *, is_last: bool) -> bool:
        """A visible record of what could not be delivered; a proposal that nobody could say yes to ends."""
        self._log.error("post given up", lane=owed.post.lane, kind=owed.post.kind.value, why=why)
        if owed.post.kind is PostKind.FILE:
            await self._say_instead(owed, Notice(f"A file belongs here that I could not send ({why})."))
        if owed.post.kind in (PostKind.CARD, PostKind.BUTTONS):
            await self._unshown(owed.post.lane, why)  # first: a process that dies between the two does it again
        return await self._written_off(owed, why, lease, is_last=is_last)

    async def _say_instead(self, owed: Owed, notice: Notice) -> None:
        """Whoever waits for a file is told that it will not come, where it would have been."""
        post = owed.post
        kind = PostKind.LINE if post.reply_to is None else PostKind.REPLY
        self._log.error("file not sent", lane=post.lane)
        await self._store.record(posts=(Post(kind, post.lane, notice, post.reply_to),))

    async def _put_off(self, owed: Owed, error: BaseException, lease: Lease) -> bool:
        """Slack is busy or away: the lane waits, however long that takes."""
        pause = retry_after(error) or min(2.0 ** min(owed.attempts, 6) * 0.5, LONGEST_PAUSE_SECONDS)
        why = error_code(error) if isinstance(error, SlackApiError) else type(error).__name__
        self._log.error("post put off", lane=owed.post.lane, kind=owed.post.kind.value, why=why, seconds=pause)
        await self._store.count_attempt(owed.post_id)
        await self._sleep(pause)
        await self._leases.release([lease])
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
        if is_from_terminal(to.user_id):
            return  # told where it was asked: Slack knows no such person
        if post.file is None:
            await self._messages.reply(to, views.reply(post, await self._surfaces.point_to(post)))
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
            await self._surfaces.say(proposal, post.notice, is_broadcast=post.kind is PostKind.BROADCAST)
