"""Puts a file into a Slack conversation: an address is asked for, the bytes are sent to it, the upload is completed.

The bytes are streamed, so that a large file costs no memory, and they go to Slack's hosts only (or to the API that we
were told to use). One attempt is made; what the caller may do after it stands in the error. The upload address lets
anybody write who has it: it is in no log and in no error.

https://docs.slack.dev/messaging/working-with-files · https://docs.slack.dev/reference/methods/conversations.open
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from yarl import URL

from bot.errors import OtabrakeError
from bot.slack.people import SLACK_TROUBLE, error_code

CHUNK_BYTES = 256 * 1024
SLOWEST_BYTES_PER_SECOND = 100_000
START_SECONDS = 30.0
MAX_ALT_TEXT = 1000
MAX_NAME = 255

_DOMAINS = ("slack.com", "slack-gov.com", "slack-files.com", "slack-files-gov.com")
_PASSING = ("internal_error", "fatal_error", "request_timeout", "service_unavailable", "team_added_to_org")
_THROTTLED = ("ratelimited", "rate_limited")
_REFUSING = (400, 401, 403, 413, 415)
"""What an upload address answers to bytes that it will not take the next time either."""
_REASONS = {
    "not_in_channel": "the bot is not in that channel; invite it",
    "channel_not_found": "there is no such channel, or the bot may not see it; invite it",
    "is_archived": "that channel is archived",
    "posting_to_channel_denied": "nobody may post in that channel now; it may be archived",
    "restricted_action": "a setting of the workspace does not let the bot post there",
    "file_uploads_disabled": "the workspace has switched file uploads off",
    "file_uploads_except_images_disabled": "the workspace takes only images as files",
    "file_type_not_allowed": "the workspace does not take files of this type",
    "file_upload_size_restricted": "the workspace does not take files of this size",
    "storage_limit_reached": "the workspace has no room for files left",
    "user_disabled": "that account is deactivated",
    "user_not_found": "Slack does not know that account",
    "user_not_visible": "the bot may not see that account",
    "cannot_dm_bot": "bots take no direct messages",
}

Step = Literal["getting an address", "sending the bytes", "completing the upload", "opening a direct message"]
Source = Path | BinaryIO | bytes


class UploadFailed(OtabrakeError):
    """The file is not where it should be, and the text says why; `step` is what was being done."""

    def __init__(self, why: str, *, step: Step) -> None:
        super().__init__(f"{step}: {why}")
        self.why = why
        self.step = step


class UploadRefused(UploadFailed):
    """Slack says no, and will again: `code` is its word, `needed` the scope that the app lacks, if it is that."""

    def __init__(self, why: str, *, step: Step, code: str, needed: str | None = None) -> None:
        super().__init__(why, step=step)
        self.code = code
        self.needed = needed


class UploadInterrupted(UploadFailed):
    """Trouble that may pass; a new attempt starts at the beginning.

    `retry_after_seconds`: Slack asked for this pause. `may_be_shared`: the last answer was lost, so that the file may
    stand there already, and a new attempt may put it there twice.
    """

    def __init__(
        self, why: str, *, step: Step, retry_after_seconds: float | None = None, may_be_shared: bool = False
    ) -> None:
        super().__init__(why, step=step)
        self.retry_after_seconds = retry_after_seconds
        self.may_be_shared = may_be_shared


async def upload(
    client: AsyncWebClient,
    session: aiohttp.ClientSession,
    *,
    source: Source,
    filename: str,
    title: str,
    channel: str,
    thread_ts: str | None = None,
    comment: str | None = None,
    alt_text: str | None = None,
) -> str:
    """Shares a file in a conversation that the bot is in; the file's id.

    `source` is a path, bytes, or an open binary file, which is read from where it stands and left open. `comment` is
    Slack's markup: what people or the cloud wrote must be escaped in it. `alt_text` says what a picture shows.
    Raises `UploadRefused` and `UploadInterrupted`; `OSError` if the source cannot be opened.
    """
    async with _opened(source) as content:
        length = await asyncio.to_thread(_length, content)
        address, file_id = await _get_address(client, name=_named(filename), length=length, alt_text=alt_text)
        await _send(session, address, content=content, length=length)
    await _complete(client, file_id, title=title, channel=channel, thread_ts=thread_ts, comment=comment)
    return file_id


async def open_direct(client: AsyncWebClient, user_id: str) -> str:
    """The conversation of the bot and one person, opened if it never was. Raises as `upload` does."""
    step: Step = "opening a direct message"
    try:
        answer = await client.conversations_open(users=user_id)
    except SLACK_TROUBLE as error:
        raise _failure(error, step=step) from None
    channel = (answer.get("channel") or {}).get("id")
    if not isinstance(channel, str):
        raise UploadInterrupted("Slack's answer names no conversation", step=step)
    return channel


async def _get_address(client: AsyncWebClient, *, name: str, length: int, alt_text: str | None) -> tuple[URL, str]:
    step: Step = "getting an address"
    if length == 0:
        raise UploadRefused("the file is empty, and Slack takes no empty files", step=step, code="missing_argument")
    try:
        answer = await client.files_getUploadURLExternal(
            filename=name, length=length, alt_txt=_shortened(alt_text) if alt_text else None
        )
    except SLACK_TROUBLE as error:
        raise _failure(error, step=step) from None
    given, file_id = answer.get("upload_url"), answer.get("file_id")
    if not isinstance(given, str) or not isinstance(file_id, str):
        raise UploadInterrupted("Slack's answer has no address", step=step)
    address = _slacks(given, api=client.base_url)
    if address is None:
        raise UploadRefused("the address is not one of Slack's; nothing was sent", step=step, code="foreign_address")
    return address, file_id


async def _send(session: aiohttp.ClientSession, address: URL, *, content: BinaryIO, length: int) -> None:
    step: Step = "sending the bytes"
    whole = aiohttp.ClientTimeout(
        total=START_SECONDS + length / SLOWEST_BYTES_PER_SECOND, sock_connect=10, sock_read=START_SECONDS
    )
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
    try:
        async with session.post(
            address, data=_chunks(content, length), headers=headers, timeout=whole, allow_redirects=False
        ) as answer:
            status, pause = answer.status, answer.headers.get("Retry-After")
    except SLACK_TROUBLE as error:
        if isinstance(error.__cause__, _Unreadable):
            raise UploadInterrupted(str(error.__cause__), step=step) from None
        raise UploadInterrupted(f"Slack could not be reached ({type(error).__name__})", step=step) from None
    if status in _REFUSING:
        raise UploadRefused(f"Slack answered {status}", step=step, code=f"http_{status}")
    if status != 200:
        raise UploadInterrupted(f"Slack answered {status}", step=step, retry_after_seconds=_seconds(pause))


async def _complete(
    client: AsyncWebClient, file_id: str, *, title: str, channel: str, thread_ts: str | None, comment: str | None
) -> None:
    step: Step = "completing the upload"
    try:
        await client.files_completeUploadExternal(
            files=[{"id": file_id, "title": title}], channel_id=channel, thread_ts=thread_ts, initial_comment=comment
        )
    except SLACK_TROUBLE as error:
        raise _failure(error, step=step) from None


class _Unreadable(Exception):
    """The source cannot be read up to the length that Slack was told."""


@asynccontextmanager
async def _opened(source: Source) -> AsyncIterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, Path):
        with await asyncio.to_thread(source.open, "rb") as content:
            yield content
    else:
        yield source


async def _chunks(content: BinaryIO, length: int) -> AsyncIterator[bytes]:
    left = length
    while left:
        try:
            chunk = await asyncio.to_thread(content.read, min(CHUNK_BYTES, left))
        except OSError as error:
            raise _Unreadable(f"the file could not be read ({error.strerror})") from error
        if not chunk:
            raise _Unreadable("the file became shorter while it was read")
        left -= len(chunk)
        yield chunk


def _failure(error: Exception, *, step: Step) -> UploadFailed:
    """What an error of the Web API means; only an answer that says no for good is a refusal."""
    is_last = step == "completing the upload"
    if not isinstance(error, SlackApiError):
        why = f"Slack did not answer ({type(error).__name__})"
        return UploadInterrupted(why, step=step, may_be_shared=is_last)
    code, status = error_code(error), error.response.status_code
    if status == 429 or code in _THROTTLED:
        pause = _seconds(error.response.headers.get("Retry-After"))
        return UploadInterrupted("Slack asks for a pause", step=step, retry_after_seconds=pause)
    if status != 200 or code in (*_PASSING, "http_200"):
        return UploadInterrupted(f"Slack answered {code}", step=step, may_be_shared=is_last)
    needed = error.response.get("needed") if code == "missing_scope" else None
    if needed:
        why = f"the app lacks the scope {needed}; add it and install the app again"
        return UploadRefused(why, step=step, code=code, needed=str(needed))
    return UploadRefused(_REASONS.get(code, f"Slack answered {code}"), step=step, code=code)


def _slacks(given: str, *, api: str) -> URL | None:
    """The address, if it leads to Slack over TLS, or to the API that we were told to use."""
    try:
        address, own = URL(given, encoded=True), URL(api)
        if address.user is not None or address.host is None:
            return None
        if address.origin() == own.origin():
            return address
    except ValueError:
        return None
    is_slack = any(address.host == domain or address.host.endswith(f".{domain}") for domain in _DOMAINS)
    return address if is_slack and (address.scheme, address.port) == ("https", 443) else None


def _length(content: BinaryIO) -> int:
    at = content.tell()
    end = content.seek(0, io.SEEK_END)
    content.seek(at)
    return max(0, end - at)


def _named(filename: str) -> str:
    """A name for people's disks: no folders, nothing invisible, not too long, and not empty."""
    name = re.sub(r"[\x00-\x1f\x7f/\\\u202a-\u202e\u2066-\u2069]", "_", filename).strip() or "file"
    ending = Path(name).suffix[:20]
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - len(ending)] + ending


def _shortened(alt_text: str) -> str:
    return alt_text if len(alt_text) <= MAX_ALT_TEXT else f"{alt_text[: MAX_ALT_TEXT - 1]}…"


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdigit() else None
