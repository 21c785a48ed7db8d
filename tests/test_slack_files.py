"""Uploads: the three steps against the fake Slack, each way in which they fail, and where the bytes may go."""

from __future__ import annotations

import io
import tempfile
import traceback
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bot.sandbox.slack import FakeSlack, Fault, create_slack_app
from bot.sandbox.slack_api import DEFAULT_SCOPES
from bot.sandbox.workspace import File, load_workspace
from bot.server import served
from bot.slack.files import UploadFailed, UploadInterrupted, UploadRefused, _slacks, open_direct, upload

INCIDENT = "C0INCIDENT"
ROWS = b"device,state\na,QUEUED\n"


@dataclass
class Slack:
    """A way to Slack, and the fake behind it."""

    client: AsyncWebClient
    session: aiohttp.ClientSession
    fake: FakeSlack

    async def upload(self, source: Any = ROWS, **given: Any) -> str:
        wanted = {"filename": "rows.csv", "title": "Rows", "channel": INCIDENT} | given
        return await upload(self.client, self.session, source=source, **wanted)

    def fail(self, method: str, error: str = "internal_error", **how: Any) -> None:
        self.fake.faults.append(Fault(method=method, error=error, **how))

    def shared(self, channel: str = INCIDENT) -> list[File]:
        return [file for one in self.fake.workspace.messages(channel) for file in one.files]

    def content(self, file_id: str) -> bytes:
        kept = self.fake.shelf.shared(file_id)
        assert kept is not None
        return b"".join(self.fake.shelf.read(kept))


async def connected(app: Starlette) -> AsyncIterator[tuple[AsyncWebClient, aiohttp.ClientSession]]:
    async with served(app) as port, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{port}/api/"
        yield AsyncWebClient("xoxb-1", base_url=base, session=session, timeout=5, retry_handlers=[]), session


@pytest.fixture
async def slack(request: pytest.FixtureRequest) -> AsyncIterator[Slack]:
    app = create_slack_app(
        load_workspace(),
        signing_secret="s",
        bot_token="xoxb-1",
        app_token="xapp-1",
        now=lambda: 1_712_345_678.9,
        scopes=getattr(request, "param", DEFAULT_SCOPES),
    )
    async for client, session in connected(app):
        yield Slack(client, session, app.state.slack)


async def test_a_file_comes_into_the_thread_with_its_title_comment_and_alt_text(slack: Slack) -> None:
    root = (await slack.client.chat_postMessage(channel=INCIDENT, text="root"))["ts"]
    file_id = await slack.upload(thread_ts=root, comment="still moving", alt_text="seven devices")
    reply = slack.fake.workspace.messages(INCIDENT, root)[1]
    assert (reply.text, reply.thread_ts) == ("still moving", root)
    assert [(one.id, one.name, one.title, one.alt_text) for one in reply.files] == [
        (file_id, "rows.csv", "Rows", "seven devices")
    ]
    assert slack.content(file_id) == ROWS


async def test_a_file_may_come_from_a_path_or_from_the_rest_of_an_open_file(slack: Slack, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(ROWS)
    assert slack.content(await slack.upload(path)) == ROWS
    opened = io.BytesIO(b"skipped" + ROWS)
    opened.seek(7)
    assert slack.content(await slack.upload(opened)) == ROWS
    assert not opened.closed
    with pytest.raises(FileNotFoundError):
        await slack.upload(tmp_path / "nothing")


async def test_a_large_file_costs_no_memory(slack: Slack) -> None:
    with tempfile.TemporaryFile() as large:
        large.truncate(50 * 2**20)
        tracemalloc.start()
        try:
            await slack.upload(large)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert slack.shared()[0].size == 50 * 2**20
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a/../b\\c\r\n.csv", "a_.._b_c__.csv"),
        ("设备 \u202egnp.csv", "设备 _gnp.csv"),
        ("x" * 300 + ".csv", "x" * 251 + ".csv"),
        (" ", "file"),
    ],
)
async def test_a_name_is_made_one_that_every_disk_takes(slack: Slack, given: str, kept: str) -> None:
    await slack.upload(filename=given)
    assert slack.shared()[0].name == kept


async def test_a_long_alt_text_is_cut_to_what_slack_takes(slack: Slack) -> None:
    await slack.upload(alt_text="x" * 5000)
    assert slack.shared()[0].alt_text == "x" * 999 + "…"


@pytest.mark.parametrize(
    ("channel", "code", "says"),
    [
        ("C0NEWINC01", "not_in_channel", "invite it"),
        ("C0NOWHERE1", "channel_not_found", "invite it"),
        ("C0ARCHIVE1", "posting_to_channel_denied", "archived"),
    ],
)
async def test_a_channel_that_takes_no_file_is_told(slack: Slack, channel: str, code: str, says: str) -> None:
    with pytest.raises(UploadRefused, match=says) as refused:
        await slack.upload(channel=channel)
    assert (refused.value.code, refused.value.step) == (code, "completing the upload")


@pytest.mark.parametrize("slack", [DEFAULT_SCOPES - {"files:write", "im:write"}], indirect=True)
async def test_a_missing_scope_is_named(slack: Slack) -> None:
    with pytest.raises(UploadRefused, match="lacks the scope files:write") as refused:
        await slack.upload()
    assert (refused.value.code, refused.value.needed) == ("missing_scope", "files:write")
    with pytest.raises(UploadRefused, match="lacks the scope im:write"):
        await open_direct(slack.client, "U0ONCALLA1")


async def test_an_empty_file_is_refused_before_anything_is_asked(slack: Slack) -> None:
    slack.fail("*", times=9)
    with pytest.raises(UploadRefused, match="empty"):
        await slack.upload(b"")
    assert slack.fake.faults[0].times == 9


@pytest.mark.parametrize("code", ["file_uploads_disabled", "file_type_not_allowed", "storage_limit_reached", "odd"])
async def test_a_refusal_is_for_good_and_has_a_sentence(slack: Slack, code: str) -> None:
    slack.fail("files.getUploadURLExternal", code)
    with pytest.raises(UploadRefused) as refused:
        await slack.upload()
    assert refused.value.code == code
    assert refused.value.why.startswith("Slack answered odd" if code == "odd" else "the workspace")


@pytest.mark.parametrize(
    ("method", "how", "pause", "may_be_shared"),
    [
        ("files.getUploadURLExternal", {"error": "ratelimited", "status": 429, "retry_after": 7}, 7.0, False),
        ("files.getUploadURLExternal", {"status": 503}, None, False),
        ("files.getUploadURLExternal", {"error": "internal_error"}, None, False),
        ("upload", {"status": 429, "retry_after": 9}, 9.0, False),
        ("upload", {"status": 500}, None, False),
        ("upload", {"status": 404}, None, False),
        ("files.completeUploadExternal", {"error": "ratelimited", "status": 429, "retry_after": 3}, 3.0, False),
        ("files.completeUploadExternal", {"status": 502}, None, True),
        ("files.completeUploadExternal", {"error": "fatal_error", "is_carried_out": True}, None, True),
    ],
)
async def test_trouble_that_may_pass_says_when_and_whether_the_file_may_stand_already(
    slack: Slack, method: str, how: dict[str, Any], pause: float | None, may_be_shared: bool
) -> None:
    slack.fail(method, **how)
    with pytest.raises(UploadInterrupted) as interrupted:
        await slack.upload()
    assert (interrupted.value.retry_after_seconds, interrupted.value.may_be_shared) == (pause, may_be_shared)
    assert len(slack.shared()) == how.get("is_carried_out", 0)
    await slack.upload()
    assert slack.content(slack.shared()[-1].id) == ROWS


@pytest.mark.parametrize("status", [400, 413])
async def test_bytes_that_slack_will_never_take_are_a_refusal(slack: Slack, status: int) -> None:
    slack.fail("upload", status=status)
    with pytest.raises(UploadRefused, match=f"sending the bytes: Slack answered {status}"):
        await slack.upload()


class Shrinking(io.BytesIO):
    """Says that it is longer than it is."""

    def seek(self, at: int, whence: int = 0) -> int:
        return super().seek(at, whence) + (100 if whence else 0)


class Failing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("source", "why"), [(Shrinking(ROWS), "became shorter"), (Failing(ROWS), "could not be read .Input/output error")]
)
async def test_a_source_that_fails_while_it_is_read_is_no_file(slack: Slack, source: io.BytesIO, why: str) -> None:
    with pytest.raises(UploadInterrupted, match=why):
        await slack.upload(source)
    assert slack.shared() == []


async def test_without_slack_an_upload_is_interrupted() -> None:
    async with aiohttp.ClientSession() as session:
        client = AsyncWebClient("xoxb-1", base_url="http://127.0.0.1:9/api/", session=session, retry_handlers=[])
        with pytest.raises(UploadInterrupted, match="did not answer"):
            await upload(client, session, source=ROWS, filename="a", title="a", channel=INCIDENT)
        with pytest.raises(UploadInterrupted, match="did not answer"):
            await open_direct(client, "U0ONCALLA1")


def lying(address: str) -> tuple[Starlette, list[bytes]]:
    """A Slack that gives out `address`, with what was sent to its `/upload/secret`, which leads elsewhere."""
    came: list[bytes] = []

    async def ask(request: Request) -> Response:
        return JSONResponse({"ok": True, "file_id": "F1", "upload_url": address.replace("~", str(request.base_url))})

    async def redirect(request: Request) -> Response:
        came.append(await request.body())
        return RedirectResponse("/elsewhere", status_code=307)

    async def elsewhere(request: Request) -> Response:
        came.append(b"elsewhere")
        return Response()

    routes = [Route("/api/{method}", ask, methods=["POST"]), Route("/upload/secret", redirect, methods=["POST"])]
    return Starlette(routes=[*routes, Route("/elsewhere", elsewhere, methods=["POST"])]), came


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/upload/secret",
        "https://files.slack.com.example/secret",
        "https://slack.com@[::1]/secret",
        "",
    ],
)
async def test_nothing_is_sent_to_an_address_that_is_not_slacks(address: str) -> None:
    app, came = lying(address)
    async for client, session in connected(app):
        with pytest.raises(UploadRefused, match="nothing was sent"):
            await upload(client, session, source=ROWS, filename="a", title="a", channel=INCIDENT)
    assert came == []


async def test_a_redirection_is_not_followed_and_the_address_is_in_no_error() -> None:
    app, came = lying("~upload/secret")
    async for client, session in connected(app):
        with pytest.raises(UploadFailed, match="Slack answered 307") as failed:
            await upload(client, session, source=ROWS, filename="a", title="a", channel=INCIDENT)
    assert came == [ROWS]
    assert "secret" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    ("address", "is_slacks"),
    [
        ("https://files.slack.com/upload/v1/ABC%2Fd", True),
        ("https://slack.com/x", True),
        ("https://files.slack-gov.com/upload/v1/ABC", True),
        ("https://slack-files.com/x", True),
        ("http://files.slack.com/x", False),
        ("https://files.slack.com:8443/x", False),
        ("https://u:p@files.slack.com/x", False),
        ("https://notslack.com/x", False),
        ("https://slack.com.example/x", False),
        ("https://example/\\@slack.com", False),
        ("//slack.com/x", False),
        ("https://[/x", False),
        ("http://127.0.0.1:8081/x", False),
        ("http://127.0.0.1:8080/x", True),
    ],
)
def test_bytes_go_to_slacks_hosts_or_to_the_api_that_we_were_told_to_use(address: str, is_slacks: bool) -> None:
    found = _slacks(address, api="http://127.0.0.1:8080/api/")
    assert (found is not None) is is_slacks
    assert found is None or str(found) == address


async def test_a_direct_message_takes_a_file(slack: Slack) -> None:
    channel = await open_direct(slack.client, "U0ONCALLB2")
    await slack.upload(channel=channel)
    assert [file.name for file in slack.shared(channel)] == ["rows.csv"]
    assert await open_direct(slack.client, "U0ONCALLB2") == channel


@pytest.mark.parametrize(("user", "code"), [("U0FORMER01", "user_disabled"), ("U0NOBODY01", "user_not_found")])
async def test_somebody_who_takes_no_direct_message_is_told(slack: Slack, user: str, code: str) -> None:
    with pytest.raises(UploadRefused, match="opening a direct message") as refused:
        await open_direct(slack.client, user)
    assert refused.value.code == code
