"""Files that are made when they are sent: lists of devices as CSV, and the curve of a batch as a picture.

What is made lies in a temporary file without a name, so it is gone whatever happens. A file that cannot be made or that
Slack does not take ends in `NotSent`, which says in words what is missing; nothing is tried for ever, and no file is
ever half. What it does not do: decide who gets which file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import Enum
from typing import BinaryIO, cast

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.charts import ChartFailed, draw
from bot.errors import CloudError, OtabrakeError
from bot.exchange import File, FileKind
from bot.model import Notice
from bot.ports import CloudReads, CloudWords, Readings, Watched
from bot.proposals import Proposal
from bot.slack.blocks import escaped
from bot.slack.curves import STATE_NAMES, Draw, picture_of
from bot.slack.files import Source, UploadInterrupted, UploadRefused, open_direct, upload
from bot.slack.listing import Listed, Lister
from bot.workflow.sentences import lower_first

UPLOAD_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 60.0
_ONE_MOMENT = timedelta(minutes=1)


class Turn(Enum):
    """Of each kind one file is made at a time: a list takes part of the call budget, a picture takes a process.

    What one person asked for never keeps a thread waiting.
    """

    LIST_FOR_ONE = "list for one"
    LIST_FOR_ALL = "list for all"
    PICTURE = "picture"


class NotSent(OtabrakeError):
    """There is no file, and will be none: `notice` says why to whom it was owed, `why` to the log."""

    def __init__(self, notice: Notice, *, why: str) -> None:
        super().__init__(notice.text)
        self.notice = notice
        self.why = why


class Attachments:
    """Makes files and shares them in Slack. Raises `NotSent`; `StoreUnavailable` where readings cannot be had."""

    def __init__(
        self,
        client: AsyncWebClient,
        session: aiohttp.ClientSession,
        *,
        reads: CloudReads,
        readings: Readings,
        words: CloudWords,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Draw = draw,
    ) -> None:
        self._client = client
        self._session = session
        self._readings = readings
        self._words = words
        self._clock = clock
        self._sleep = sleep
        self._lister = Lister(reads, clock, sleep)
        self._draw = draw
        self._turns = {turn: asyncio.Semaphore(1) for turn in Turn}

    async def send_to(self, user_id: str, file: File) -> bool:
        """As `send`, into a direct message with one person."""
        try:
            channel = await self._trying(lambda: open_direct(self._client, user_id))
        except (UploadRefused, UploadInterrupted) as error:
            raise _not_taken(file, error) from error
        return await self.send(file, channel)

    async def send(self, file: File, channel: str, *, thread: str | None = None, about: Proposal | None = None) -> bool:
        """Makes the file and shares it; False if there is nothing to see. `about` is the change that a curve is of."""
        async with self._turns[_turn_of(file, thread)]:
            try:
                if file.kind is FileKind.CURVE:
                    return await self._send_curve(file, channel, thread, about)
                return await self._send_list(file, channel, thread)
            except CloudError as error:
                raise self._not_listed(file, error) from error
            except (UploadRefused, UploadInterrupted) as error:
                raise _not_taken(file, error) from error
            except ChartFailed as error:
                notice = Notice(f"The curve of rollout {file.target.job} could not be drawn: {lower_first(str(error))}")
                raise NotSent(notice, why=str(error)) from error
            except OSError as error:
                notice = Notice("A file could not be made: the machine that I run on has no room, or fails.")
                raise NotSent(notice, why=str(error)) from error

    async def _send_list(self, file: File, channel: str, thread: str | None) -> bool:
        with tempfile.TemporaryFile(prefix="otabrake-") as opened:
            content = cast(BinaryIO, opened)
            listed = await self._lister.write(file.target, file.states, content)
            if not listed.rows:
                raise NotSent(_nothing_listed(file, listed), why="no device")
            await self._share(
                content,
                filename=f"{file.kind.value}-{file.target.job}-{listed.began_at:%Y%m%dT%H%M%SZ}.csv",
                title=f"{_what(file)} of rollout {file.target.job}",
                channel=channel,
                thread=thread,
                comment=escaped(list_comment(file, listed)),
            )
        return True

    async def _send_curve(self, file: File, channel: str, thread: str | None, about: Proposal | None) -> bool:
        since = file.since or self._clock()
        readings = await self._readings.fetch_readings(Watched(file.target), since=since)
        picture = await picture_of(file, readings, about, draw=self._draw)
        if picture is None:
            return False
        await self._share(
            picture.content,
            filename=f"curve-{file.target.job}-{picture.as_of:%Y%m%dT%H%M%SZ}.png",
            title=picture.title,
            channel=channel,
            thread=thread,
            comment=escaped(f"{picture.title}, as of {picture.as_of:%H:%M:%S} UTC."),
            alt_text=picture.alt_text,
        )
        return True

    async def _share(
        self,
        source: Source,
        *,
        filename: str,
        title: str,
        channel: str,
        thread: str | None,
        comment: str,
        alt_text: str | None = None,
    ) -> None:
        """Uploads from the beginning, again where the trouble may pass: a file that stands twice does no harm."""

        async def attempt() -> str:
            if not isinstance(source, bytes):
                await asyncio.to_thread(cast(BinaryIO, source).seek, 0)
            return await upload(
                self._client,
                self._session,
                source=source,
                filename=filename,
                title=title,
                channel=channel,
                thread_ts=thread,
                comment=comment,
                alt_text=alt_text,
            )

        await self._trying(attempt)

    async def _trying(self, attempt: Callable[[], Awaitable[str]]) -> str:
        for number in range(1, UPLOAD_ATTEMPTS):
            try:
                return await attempt()
            except UploadInterrupted as error:
                pause = error.retry_after_seconds or 2.0**number
            await self._sleep(min(pause, LONGEST_PAUSE_SECONDS))
        return await attempt()

    def _not_listed(self, file: File, error: CloudError) -> NotSent:
        explained = self._words.explain(error, file.target)
        notice = Notice(
            f"The list of devices of rollout {file.target.job} could not be read to its end, so there is none: "
            f"{lower_first(explained.text)}",
            (*explained.lines, f"The numbers that were told stand. For the list: /ota tasks {file.target.job}"),
            reference=explained.reference,
        )
        return NotSent(notice, why=str(error))


def _turn_of(file: File, thread: str | None) -> Turn:
    if file.kind is FileKind.CURVE:
        return Turn.PICTURE
    return Turn.LIST_FOR_ONE if thread is None else Turn.LIST_FOR_ALL


def in_direct_messages() -> Notice:
    return Notice("The file is in your direct messages with me.")


def list_comment(file: File, listed: Listed) -> str:
    """What a list is, as of when, and what is not in it."""
    when = f"{listed.began_at:%H:%M:%S}"
    if listed.ended_at - listed.began_at >= _ONE_MOMENT:
        when += f" to {listed.ended_at:%H:%M:%S}"
    count = f"{listed.rows:,} device{'s' if listed.rows != 1 else ''}"
    is_cut = listed.total is not None and listed.listable is not None and listed.listable < listed.total
    if is_cut:
        count = f"the first {listed.rows:,} of {listed.total:,} devices"
    said = [f"{_what(file)} of rollout {file.target.job}: {count} as of {when} UTC."]
    if is_cut:
        said.append(
            "The cloud's API lists no more for one question; of a single state it lists its own: "
            f"/ota tasks {file.target.job} failed"
        )
    if listed.listable is not None and listed.listable != listed.rows:
        said.append(
            f"The cloud counted {listed.listable:,} of them: what moved while it was listed may be missing or stand "
            "twice."
        )
    return " ".join(said)


def _what(file: File) -> str:
    states = ", ".join(name.lower() for state, name in STATE_NAMES.items() if state in file.states)
    said = "Devices that still move" if file.kind is FileKind.MOVING else "Devices"
    return f"{said} ({states})" if states else said


def _nothing_listed(file: File, listed: Listed) -> Notice:
    return Notice(f"{_what(file)} of rollout {file.target.job}: none as of {listed.began_at:%H:%M:%S} UTC, so no file.")


def _not_taken(file: File, error: UploadRefused | UploadInterrupted) -> NotSent:
    what = "The curve" if file.kind is FileKind.CURVE else "The list of devices"
    notice = Notice(
        f"{what} of rollout {file.target.job} could not be sent: {error.why}.",
        ("The numbers that were told stand.",),
    )
    return NotSent(notice, why=str(error))
