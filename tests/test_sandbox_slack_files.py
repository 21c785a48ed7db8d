"""The fake Slack's files and direct messages: what it refuses, what it keeps, and how it hands files to a browser."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.slack_api import DEFAULT_SCOPES
from bot.sandbox.slack_files import MAX_FILE_BYTES, MAX_KEPT_BYTES
from bot.sandbox.workspace import load_workspace
from bot.server import served

INCIDENT = "C0INCIDENT"
BOT = {"Authorization": "Bearer xoxb-1"}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (640).to_bytes(4) + (360).to_bytes(4) + b"\x08\x02\x00\x00\x00"


@dataclass
class Caller:
    client: httpx.AsyncClient
    slack: FakeSlack

    async def __call__(self, method: str, **arguments: Any) -> dict[str, Any]:
        return (await self.client.post(f"/api/{method}", json=arguments, headers=BOT)).json()

    async def address(self, name: str = "a.csv", length: int = 3, **more: Any) -> tuple[str, str]:
        answer = await self("files.getUploadURLExternal", filename=name, length=length, **more)
        return answer["upload_url"], answer["file_id"]

    async def uploaded(self, name: str = "a.csv", content: bytes = b"a,b", **more: Any) -> str:
        address, file_id = await self.address(name, len(content), **more)
        assert (await self.client.post(address, content=content)).status_code == 200
        return file_id

    async def shared(self, name: str = "a.csv", content: bytes = b"a,b", **more: Any) -> dict[str, Any]:
        """The file as the message in the channel shows it."""
        file_id = await self.uploaded(name, content, **more)
        answer = await self.complete(file_id, channel_id=INCIDENT)
        assert answer["ok"] is True
        return (await self.messages())[-1]["files"][0]

    async def complete(self, *file_ids: str, **more: Any) -> dict[str, Any]:
        return await self("files.completeUploadExternal", files=[{"id": one} for one in file_ids], **more)

    async def messages(self, channel: str = INCIDENT, **asked: str) -> list[dict[str, Any]]:
        answer = await self.client.get("/_sandbox/messages", params={"channel": channel, **asked})
        return answer.json()["messages"]


def fake(scopes: frozenset[str] = DEFAULT_SCOPES) -> Any:
    return create_slack_app(
        load_workspace(),
        signing_secret="s",
        bot_token="xoxb-1",
        app_token="xapp-1",
        now=lambda: 1_712_345_678.9,
        scopes=scopes,
    )


@pytest.fixture
async def call(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    app = fake(getattr(request, "param", DEFAULT_SCOPES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://slack") as client:
        yield Caller(client, app.state.slack)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"length": 3}, "invalid_arguments"),
        ({"filename": "a.csv"}, "invalid_arguments"),
        ({"filename": "a.csv", "length": 0}, "missing_argument"),
        ({"filename": "a.csv", "length": -1}, "invalid_arguments"),
        ({"filename": "a.csv", "length": True}, "invalid_arguments"),
        ({"filename": "a.csv", "length": "3.5"}, "invalid_arguments"),
        ({"filename": "a.csv", "length": 3, "snippet_type": "csv"}, "invalid_arguments"),
        ({"filename": "a.png", "length": 3, "alt_txt": "x" * 1001}, "alt_txt_too_large"),
        ({"filename": "a.csv", "length": MAX_FILE_BYTES + 1}, "file_upload_size_restricted"),
    ],
)
async def test_an_address_that_cannot_be_had_is_refused(call: Caller, arguments: dict[str, Any], error: str) -> None:
    assert (await call("files.getUploadURLExternal", **arguments))["error"] == error


@pytest.mark.parametrize("call", [DEFAULT_SCOPES - {"files:write", "im:write"}], indirect=True)
@pytest.mark.parametrize(
    ("method", "arguments", "needed"),
    [
        ("files.getUploadURLExternal", {"filename": "a", "length": 1}, "files:write"),
        ("files.completeUploadExternal", {"files": [{"id": "F1"}]}, "files:write"),
        ("conversations.open", {"users": "U0ONCALLA1"}, "im:write"),
    ],
)
async def test_files_and_direct_messages_need_their_scopes(
    call: Caller, method: str, arguments: dict[str, Any], needed: str
) -> None:
    answer = await call(method, **arguments)
    assert (answer["error"], answer["needed"]) == ("missing_scope", needed)


async def test_the_room_for_files_has_an_end(call: Caller) -> None:
    for _ in range(MAX_KEPT_BYTES // MAX_FILE_BYTES):
        await call.address(length=MAX_FILE_BYTES)
    answer = await call("files.getUploadURLExternal", filename="a", length=MAX_FILE_BYTES)
    assert answer["error"] == "storage_limit_reached"


async def test_an_address_takes_one_post_and_no_other_length(call: Caller) -> None:
    for content, status in ((b"abcd", 400), (b"ab", 400), (b"abc", 200)):
        address, file_id = await call.address(length=3)
        assert (await call.client.post(address, content=content)).status_code == status
        assert (await call.client.post(address, content=b"abc")).status_code == 404
        assert (await call.complete(file_id))["ok"] is (status == 200)
    assert (await call.client.post("/upload/v1/nonsense", content=b"abc")).status_code == 404


async def test_bytes_may_come_as_a_form_with_one_file(call: Caller) -> None:
    content = b"\r\n--x\r\n\r\n\x00\xff a,b\r\n"
    address, file_id = await call.address(length=len(content))
    assert (await call.client.post(address, files={"filename": ("a.csv", content)})).status_code == 200
    await call.complete(file_id, channel_id=INCIDENT)
    shown = (await call.messages())[-1]["files"][0]
    assert (await call.client.get(shown["url_private"])).content == content
    address, _ = await call.address(length=3)
    two = [("a", ("a", b"abc")), ("b", ("b", b"abc"))]
    assert (await call.client.post(address, files=two)).status_code == 400


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel_id": "C0NOWHERE1"}, "channel_not_found"),
        ({"channel_id": "C0PRIVATE1"}, "channel_not_found"),
        ({"channel_id": "C0NEWINC01"}, "not_in_channel"),
        ({"channel_id": "C0ARCHIVE1"}, "posting_to_channel_denied"),
        ({"channel_id": INCIDENT, "thread_ts": "1.2"}, "message_not_found"),
        ({"channel_id": INCIDENT, "initial_comment": "x" * 40_001}, "msg_too_long"),
        ({"files": []}, "invalid_arguments"),
        ({"files": ["F1"]}, "invalid_arguments"),
        ({"files": "{"}, "invalid_arguments"),
        ({"files": [{"id": "F1", "colour": "red"}]}, "invalid_arguments"),
        ({"files": [{"id": 5}]}, "invalid_arguments"),
        ({"files": [{"id": "F0NOTHERE1"}]}, "file_not_found"),
        ({"channels": INCIDENT}, "invalid_arguments"),
    ],
)
@pytest.mark.parametrize("call", [DEFAULT_SCOPES | {"chat:write.public"}], indirect=True)
async def test_a_refused_completion_shares_nothing_and_may_be_made_right(
    call: Caller, arguments: dict[str, Any], error: str
) -> None:
    file_id = await call.uploaded()
    answer = await call("files.completeUploadExternal", **({"files": [{"id": file_id}]} | arguments))
    assert answer["error"] == error
    assert await call.messages() == []
    assert (await call.client.get(f"/files/{file_id}/a.csv")).status_code == 404
    assert (await call.complete(file_id, channel_id=INCIDENT))["ok"] is True


async def test_a_file_is_completed_once_and_only_with_its_bytes(call: Caller) -> None:
    _, empty = await call.address()
    assert (await call.complete(empty, channel_id=INCIDENT))["error"] == "file_not_found"
    file_id = await call.uploaded()
    assert (await call.complete(file_id, file_id))["error"] == "invalid_arguments"
    assert (await call.complete(file_id, channel_id=INCIDENT))["ok"] is True
    assert (await call.complete(file_id, channel_id=INCIDENT))["error"] == "file_not_found"


async def test_a_file_stands_in_the_thread_with_its_title_and_comment(call: Caller) -> None:
    root = (await call("chat.postMessage", channel=INCIDENT, text="root"))["ts"]
    file_id = await call.uploaded("still moving.csv", b"device,state\n")
    done = await call(
        "files.completeUploadExternal",
        files=[{"id": file_id, "title": "Still moving"}],
        channel_id=INCIDENT,
        thread_ts=root,
        initial_comment="*7* devices",
    )
    assert done == {"ok": True, "files": [{"id": file_id, "title": "Still moving"}]}
    _, reply = await call.messages(thread=root)
    assert (reply["text"], reply["user"], reply["thread_ts"]) == ("*7* devices", "U0OTABRAKE", root)
    assert reply["subtype"] == "file_share"
    shown = reply["files"][0]
    assert (shown["name"], shown["title"], shown["size"]) == ("still moving.csv", "Still moving", 13)
    answer = await call.complete(await call.uploaded(), channel_id=INCIDENT, thread_ts=reply["ts"])
    assert answer["error"] == "cannot_reply_to_message"


async def test_a_picture_is_known_by_its_size_and_what_it_shows(call: Caller) -> None:
    shown = await call.shared("chart.png", PNG, alt_txt="States over time")
    assert (shown["mimetype"], shown["alt_txt"]) == ("image/png", "States over time")
    assert (shown["original_w"], shown["original_h"]) == (640, 360)
    assert "original_w" not in await call.shared("chart.png", b"not a picture")


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("chart.png", "image/png", "inline"),
        ("rows.csv", "text/csv; charset=utf-8", "attachment"),
        ("evil.html", "application/octet-stream", "attachment"),
        ("evil.svg", "application/octet-stream", "attachment"),
        ('"\r\nSet-Cookie: a=b\r\n.csv', "text/csv; charset=utf-8", "attachment"),
        ("<script>alert(1)</script>.js", "application/octet-stream", "attachment"),
        ("../../etc/设备\u202e.csv", "text/csv; charset=utf-8", "attachment"),
        ("x" * 300, "application/octet-stream", "attachment"),
    ],
)
async def test_no_name_and_no_content_is_ever_run_by_a_browser(
    call: Caller, name: str, kind: str, disposition: str
) -> None:
    shown = await call.shared(name, b"<script>alert(1)</script>")
    answer = await call.client.get(shown["url_private"])
    assert answer.status_code == 200
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"].startswith(f"{disposition}; filename*=UTF-8''")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    downloaded = await call.client.get(shown["url_private_download"])
    assert downloaded.headers["content-disposition"].startswith("attachment")


async def test_files_are_read_from_this_machine_only(call: Caller) -> None:
    shown = await call.shared()
    elsewhere = httpx.ASGITransport(call.client._transport.app, client=("192.0.2.7", 5))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://slack") as client:
        assert (await client.get(shown["url_private"])).status_code == 403


async def test_files_uploaded_at_once_keep_their_own_bytes(call: Caller) -> None:
    first, first_id = await call.address(length=200_000)
    second, second_id = await call.address(length=200_000)

    async def slowly(letter: bytes) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield letter * 10_000

    await call.client.post(second, content=slowly(b"2"))
    await call.client.post(first, content=slowly(b"1"))
    await call.complete(first_id, second_id, channel_id=INCIDENT)
    files = (await call.messages())[-1]["files"]
    read = [(await call.client.get(file["url_private"])).content for file in files]
    assert read == [b"1" * 200_000, b"2" * 200_000]


@pytest.mark.parametrize("is_carried_out", [False, True])
async def test_a_fault_may_stand_at_the_upload_address(call: Caller, is_carried_out: bool) -> None:
    fault = {"method": "upload", "status": 503, "is_carried_out": is_carried_out}
    await call.client.post("/_sandbox/faults", json=fault)
    address, file_id = await call.address()
    assert (await call.client.post(address, content=b"a,b")).status_code == 503
    assert (await call.complete(file_id, channel_id=INCIDENT))["ok"] is is_carried_out


@pytest.mark.parametrize(
    ("users", "error"),
    [
        (" , ", "users_list_not_supplied"),
        ("U0NOBODY01", "user_not_found"),
        ("U0FORMER01", "user_disabled"),
        ("U0OTHERBOT", "cannot_dm_bot"),
        ("USLACKBOT", "cannot_dm_bot"),
        ("U0ONCALLA1,U0ONCALLB2", "missing_scope"),
    ],
)
async def test_a_direct_message_that_cannot_be_is_refused(call: Caller, users: str, error: str) -> None:
    assert (await call("conversations.open", users=users))["error"] == error


async def test_a_direct_message_is_opened_once_and_takes_files(call: Caller) -> None:
    new = await call("conversations.open", users="U0ONCALLB2", return_im=True)
    again = await call("conversations.open", users="U0ONCALLB2")
    assert (new["channel"]["is_im"], new["channel"]["user"]) == (True, "U0ONCALLB2")
    assert again == {"ok": True, "no_op": True, "already_open": True, "channel": {"id": new["channel"]["id"]}}
    assert (await call("conversations.open", users="U0ONCALLA1"))["channel"]["id"] == "D0ONCALLA1"
    await call.complete(await call.uploaded(), channel_id=new["channel"]["id"])
    assert (await call.messages(new["channel"]["id"]))[0]["files"][0]["name"] == "a.csv"
    seen = await call.client.get("/_sandbox/conversation", params={"channel": INCIDENT, "user": "U0ONCALLB2"})
    assert new["channel"]["id"] in seen.json()["conversations"]


async def test_slacks_own_client_uploads_by_the_three_steps() -> None:
    app = fake()
    async with served(app) as port:
        client = AsyncWebClient("xoxb-1", base_url=f"http://127.0.0.1:{port}/api/")
        answer = await client.files_upload_v2(
            file=io.BytesIO(b"a,b\n"),
            filename="a.csv",
            title="Rows",
            alt_txt="rows",
            channel=INCIDENT,
            initial_comment="here",
        )
        assert answer["files"][0]["title"] == "Rows"
        with pytest.raises(SlackApiError) as refused:
            await client.files_upload_v2(content="a", filename="a.csv", channel="C0NEWINC01")
        assert refused.value.response["error"] == "not_in_channel"
    said = app.state.slack.workspace.messages(INCIDENT)
    assert [(one.text, one.files[0].title) for one in said] == [("here", "Rows")]
