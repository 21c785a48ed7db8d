"""Files in the fake Slack: an address to upload to, the bytes, their completion into a message, and reading them again.

Contents lie one after the other in one temporary file without a name, so that memory holds none of them. An address
takes one post, whatever comes of it, and a file is completed once. Two answers are our reading, where the docs are
silent: bytes of another length are refused, and completing a file without bytes, or twice, is `file_not_found`.
Snippets, several channels at once and blocks instead of a comment are left out.

Sources: docs.slack.dev, files.getUploadURLExternal, files.completeUploadExternal, "File objects".
"""

from __future__ import annotations

import ipaddress
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from email.message import Message as Header
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from bot.sandbox.slack_api import MAX_POST_TEXT, Arguments, Method, Refused, WebApi
from bot.sandbox.slack_payloads import Json
from bot.sandbox.workspace import Channel, File, Message

MAX_FILE_BYTES = 100 * 2**20
MAX_KEPT_BYTES = 256 * 2**20
MAX_FORM_BYTES = 8 * 2**20
"""A multipart form is read into memory; larger files are posted as they are."""
MAX_ALT_TEXT = 1000
MAX_FILES_AT_ONCE = 10
CHUNK_BYTES = 64 * 2**10

PICTURES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif"}
KINDS = PICTURES | {"csv": "text/csv", "txt": "text/plain", "json": "application/json", "pdf": "application/pdf"}
HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=86400, immutable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file and where its bytes lie; `is_uploaded` once they came, `is_shared` once it was completed."""

    file: File
    starts_at: int
    is_uploaded: bool = False
    is_shared: bool = False


class Shelf:
    """Keeps files from the asking for an address to the end of the process."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._tickets: dict[str, str] = {}
        self._bytes = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as the shelf is)
        self._taken = 0
        weakref.finalize(self, self._bytes.close)

    def methods(self) -> Mapping[str, Method]:
        return {
            "files.getUploadURLExternal": Method(
                carry_out=self._mint,
                takes={"filename": "string", "length": "integer", "alt_txt": "string"},
                needs=("filename", "length"),
                scopes=("files:write",),
            ),
            "files.completeUploadExternal": Method(
                carry_out=self._complete,
                takes={"files": "array", "channel_id": "string", "thread_ts": "string", "initial_comment": "string"},
                needs=("files",),
                scopes=("files:write",),
            ),
        }

    def _mint(self, api: WebApi, arguments: Arguments) -> Json:
        name, length = arguments["filename"], arguments["length"]
        alt_text = arguments.get("alt_txt", "")
        if length == 0:
            raise Refused("missing_argument")
        if len(alt_text) > MAX_ALT_TEXT:
            raise Refused("alt_txt_too_large")
        if length > MAX_FILE_BYTES:
            raise Refused("file_upload_size_restricted")
        if self._taken + length > MAX_KEPT_BYTES:
            raise Refused("storage_limit_reached")
        file = File(
            id=f"F{uuid4().hex[:10].upper()}",
            name=name,
            title=name,
            mimetype=KINDS.get(name.rpartition(".")[2].lower(), "application/octet-stream"),
            size=length,
            user=api.app.bot_user,
            created=int(api.now()),
            alt_text=alt_text,
        )
        self._kept[file.id] = Kept(file=file, starts_at=self._taken)
        self._taken += length
        ticket = uuid4().hex
        self._tickets[ticket] = file.id
        return {"upload_url": f"/upload/v1/{ticket}", "file_id": file.id}

    def use_ticket(self, ticket: str) -> Kept | None:
        """The file that this address was made for, and the end of the address."""
        file_id = self._tickets.pop(ticket, None)
        return None if file_id is None else self._kept[file_id]

    async def take(self, kept: Kept, content: AsyncIterator[bytes]) -> bool:
        """Keeps the bytes; False if they are more or fewer than were announced."""
        came, size = 0, kept.file.size
        async for chunk in content:
            if came + len(chunk) > size:
                return False
            self._bytes.seek(kept.starts_at + came)
            self._bytes.write(chunk)
            came += len(chunk)
        if came < size:
            return False
        file = kept.file
        if file.mimetype == "image/png":
            width, height = _png_size(b"".join(self.read(replace(kept, file=replace(file, size=min(size, 24))))))
            file = replace(file, width=width, height=height)
        self._kept[file.id] = replace(kept, file=file, is_uploaded=True)
        return True

    def shared(self, file_id: str) -> Kept | None:
        kept = self._kept.get(file_id)
        return kept if kept is not None and kept.is_shared else None

    def read(self, kept: Kept) -> Iterator[bytes]:
        for at in range(0, kept.file.size, CHUNK_BYTES):
            self._bytes.seek(kept.starts_at + at)
            yield self._bytes.read(min(CHUNK_BYTES, kept.file.size - at))

    def _complete(self, api: WebApi, arguments: Arguments) -> Json:
        wanted = [self._uploaded(entry, at) for at, entry in enumerate(arguments["files"])]
        if len(wanted) > MAX_FILES_AT_ONCE or len({one.file.id for one in wanted}) < len(wanted):
            raise Refused("invalid_arguments", "too many files, or one twice [json-pointer:/files]")
        files = tuple(one.file for one in wanted)
        if "channel_id" in arguments:
            _share(api, _open_channel(api, arguments["channel_id"]), files, arguments)
        self._kept |= {one.file.id: replace(one, is_shared=True) for one in wanted}
        return {"files": [{"id": file.id, "title": file.title} for file in files]}

    def _uploaded(self, entry: Any, at: int) -> Kept:
        if not isinstance(entry, Mapping) or entry.keys() - {"id", "title"}:
            raise Refused("invalid_arguments", f"must be an object with `id` and `title` [json-pointer:/files/{at}]")
        file_id, title = entry.get("id"), entry.get("title", "")
        if not isinstance(file_id, str) or not isinstance(title, str):
            raise Refused("invalid_arguments", f"must be a string [json-pointer:/files/{at}]")
        kept = self._kept.get(file_id)
        if kept is None or not kept.is_uploaded or kept.is_shared:
            raise Refused("file_not_found")
        return replace(kept, file=replace(kept.file, title=title or kept.file.title))


def _open_channel(api: WebApi, channel_id: str) -> Channel:
    """Files need a member, also where `chat:write.public` lets messages in."""
    channel = api.visible_channel(channel_id)
    if api.app.bot_user not in channel.members:
        raise Refused("not_in_channel")
    if channel.is_archived:
        raise Refused("posting_to_channel_denied")
    return channel


def _share(api: WebApi, channel: Channel, files: tuple[File, ...], arguments: Arguments) -> None:
    comment, thread = arguments.get("initial_comment", ""), arguments.get("thread_ts")
    if len(comment) > MAX_POST_TEXT:
        raise Refused("msg_too_long")
    if thread:
        api.thread_root(channel, thread)
    api.workspace.say(
        Message(
            channel=channel.id,
            ts=api.workspace.mint_ts(api.now()),
            user=api.app.bot_user,
            bot_id=api.app.bot_id,
            text=comment,
            files=files,
            thread_ts=thread or None,
        )
    )


async def take_upload(shelf: Shelf, request: Request) -> Response:
    """One post to an upload address: the bytes as they are, or as the only file of a multipart form."""
    kept = shelf.use_ticket(request.path_params["ticket"])
    if kept is None:
        return PlainTextResponse("no such upload address, or used already", status_code=404)
    try:
        is_whole = await shelf.take(kept, _content(request))
    except ClientDisconnect:
        is_whole = False
    if not is_whole:
        return PlainTextResponse(f"not the {kept.file.size} bytes that were announced", status_code=400)
    return PlainTextResponse(f"OK - {kept.file.size}")


async def _content(request: Request) -> AsyncIterator[bytes]:
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/form-data"):
        yield _file_of_form(await _bounded(request), content_type) or b""
        return
    async for chunk in request.stream():
        yield chunk


def read_file(shelf: Shelf, request: Request) -> Response:
    """The content of a file, for the page. Only pictures are shown in place; nothing in a file is ever run."""
    if request.client is not None and not ipaddress.ip_address(request.client.host).is_loopback:
        return PlainTextResponse("files are read from this machine only", status_code=403)
    kept = shelf.shared(request.path_params["file_id"])
    if kept is None:
        return PlainTextResponse("no such file", status_code=404)
    file = kept.file
    is_shown = file.mimetype in PICTURES.values() and "download" not in request.query_params
    disposition = f"{'inline' if is_shown else 'attachment'}; filename*=UTF-8''{quote(file.name, safe='')}"
    kind = f"{file.mimetype}; charset=utf-8" if file.mimetype.startswith("text/") else file.mimetype
    headers = HARMLESS | {
        "Content-Type": kind,
        "Content-Disposition": disposition,
        "Content-Length": str(file.size),
    }
    return StreamingResponse(_in_turn(shelf.read(kept)), headers=headers)


async def _bounded(request: Request) -> bytes:
    """The body, or nothing if it is larger than a form may be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return b""
    return bytes(body)


async def _in_turn(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Reads on the loop: all files share one position, so two threads must not."""
    for chunk in chunks:
        yield chunk


def _file_of_form(body: bytes, content_type: str) -> bytes | None:
    header = Header()
    header["Content-Type"] = content_type
    boundary = str(header.get_param("boundary") or "")
    if not boundary:
        return None
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]
    split = [part.removeprefix(b"\r\n").partition(b"\r\n\r\n") for part in parts]
    files = [content for head, _, content in split if b"filename" in head.lower()]
    return files[0] if len(files) == 1 else None


def _png_size(start: bytes) -> tuple[int | None, int | None]:
    if not start.startswith(b"\x89PNG\r\n\x1a\n") or len(start) < 24:
        return None, None
    return int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
