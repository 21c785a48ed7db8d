"""What is said in the lanes of a conversation, shown as it is written, whichever process writes it.

What was for this person alone is then settled; the rest stays owed to Slack. What it does not do: ask, or answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from bot.errors import CloudError, StoreUnavailable
from bot.exchange import File, FileKind, Post, PostKind
from bot.model import Notice
from bot.ports import Owed
from bot.ports.own import OwnWork
from bot.proposals import Proposal, State
from bot.terminal import pages
from bot.terminal.screen import Screen
from bot.terminal.tasks import show_tasks
from bot.workflow.means import Means

AWAY_SECONDS = 60
"""So long a database that has gone away in the middle is waited for."""

T = TypeVar("T")


class Thread:
    """Shows lanes on a screen, from `start` on. `is_cut_short`: what was asked for could not be shown whole."""

    def __init__(self, actor: str, means: Means, own: OwnWork, screen: Screen) -> None:
        self._actor = actor
        self._means = means
        self._own = own
        self._screen = screen
        self._lanes: set[str] = set()
        self._last_post = 0
        self._said: set[str] = set()
        self.is_cut_short = False

    async def start(self) -> None:
        """What was said before is not shown."""
        self._last_post = await self._own.fetch_last_post()

    def listen_to(self, lane: str) -> None:
        self._lanes.add(lane)

    def say(self, kind: str, notice: Notice, **facts: object) -> None:
        self._said.add(notice.text)
        self._screen.say(kind, pages.in_shell_words(notice), **facts)

    def has_said(self, notice: Notice) -> bool:
        return notice.text in self._said

    async def look(self, proposal_id: str) -> Proposal:
        """The proposal, after everything was shown that had been said when it stood so."""
        proposal = await self.patiently(lambda: self._own.fetch_proposal(proposal_id))
        assert proposal is not None  # noqa: S101 (it was there, and none is deleted before it is over for long)
        await self.catch_up(proposal)
        return proposal

    async def catch_up(self, proposal: Proposal | None = None) -> None:
        said = await self.patiently(lambda: self._own.fetch_said(self._lanes, after=self._last_post))
        lists = {owed.post.lane for owed in said if owed.post.kind is PostKind.FILE and owed.post.reply_to is not None}
        for owed in said:
            self._last_post = owed.post_id
            if owed.post.reply_to is None:
                self._show_for_all(owed.post, proposal)
            elif owed.post.reply_to.user_id == self._actor:
                await self._show_for_one(owed.post, is_list=owed.post.lane in lists)
        await self._settle(said)

    async def _settle(self, said: Sequence[Owed]) -> None:
        mine = [owed.post_id for owed in said if owed.post.reply_to and owed.post.reply_to.user_id == self._actor]
        if mine:
            await self.patiently(lambda: self._own.settle_said(mine))

    def _show_for_all(self, post: Post, proposal: Proposal | None) -> None:
        if post.notice is not None:
            self.say(post.kind.value, post.notice)
        elif post.kind is PostKind.PROGRESS and proposal is not None and proposal.state is State.FOLLOWING:
            notice = pages.progress(proposal)
            if notice is not None and not self.has_said(notice):
                self.say("progress", notice)
        elif post.file is not None and post.file.kind is FileKind.MOVING:
            self.say("note", pages.listed_here(post.file))

    async def _show_for_one(self, post: Post, *, is_list: bool) -> None:
        """A list is shown itself, not announced."""
        if post.file is not None:
            await self._show_list(post.file)
        elif not is_list:
            facts = {"preview": pages.preview_facts(post.preview)} if post.preview is not None else {}
            self.say(post.kind.value, pages.read_lines(post), **facts)

    async def _show_list(self, file: File) -> None:
        try:
            shown = await show_tasks(self._screen, file, self._means.reads, sleep=self._means.sleep)
        except CloudError as error:
            self.is_cut_short = True
            self.say("refused", self._means.words.explain(error, file.target))
            return
        if not shown and not self._screen.is_json:
            self.say("note", pages.nothing_listed(file))

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """A database that goes away in the middle is waited for. Raises `StoreUnavailable` in the end."""
        until = asyncio.get_running_loop().time() + AWAY_SECONDS
        is_told = False
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                if asyncio.get_running_loop().time() > until:
                    raise
                if not is_told:
                    self.say("note", pages.database_away(str(error)))
                is_told = True
            await asyncio.sleep(1)
