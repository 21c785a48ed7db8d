"""Where keys come from, when they are fetched anew, and Alibaba's own package against stand-ins of its services."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from bot.alibaba.credentials import Credentials, credentials_from
from bot.alibaba.key_origins import CliKey, EcsKey, OidcKey, Origin, ProfileKey, RoleKey, UriKey
from bot.alibaba.key_settings import key_source_from, keys_from, origin_from
from bot.alibaba.key_sources import (
    KEY_ENDED,
    KEY_UNAVAILABLE,
    FetchedKey,
    KeyUnavailable,
    RefreshedKey,
    StaticKey,
    kept_fresh,
)
from bot.alibaba.official_keys import OfficialKey
from bot.alibaba.profiles import read_profile
from bot.errors import CloudRefused, ConfigurationError
from bot.model import Instance
from tests.conftest import Clock

ROLE = "acs:ram::123:role/ota"
PROVIDER = "acs:ram::123:oidc-provider/ack"
KEY = {"PROD_ACCESS_KEY_ID": "id1", "PROD_ACCESS_KEY_SECRET": "s3cret"}
BASE = Credentials("id1", "s3cret")
PREFIXES = {"a": "PROD", "b": "PROD", "c": "STAGING"}


# The variables


def test_a_key_is_read_under_its_prefix_or_under_the_usual_names() -> None:
    environ = {
        "PROD_ACCESS_KEY_ID": "id1 ",
        "PROD_ACCESS_KEY_SECRET": "secret1",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "id2",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret2",
        "ALIBABA_CLOUD_SECURITY_TOKEN": "token2",
    }
    assert credentials_from(environ, "PROD") == Credentials("id1", "secret1")
    assert credentials_from(environ, None) == Credentials("id2", "secret2", "token2")


@pytest.mark.parametrize(
    ("environ", "origin"),
    [
        (KEY, BASE),
        (KEY | {"PROD_SECURITY_TOKEN": "t0"}, Credentials("id1", "s3cret", "t0")),
        (KEY | {"PROD_ROLE_ARN": ROLE}, RoleKey(ROLE, BASE)),
        (
            KEY | {"PROD_ROLE_ARN": ROLE, "PROD_ROLE_SESSION_NAME": "me", "PROD_STS_REGION": "cn-shanghai"},
            RoleKey(ROLE, BASE, session="me", sts="sts.cn-shanghai.aliyuncs.com"),
        ),
        (
            {
                "PROD_ROLE_ARN": ROLE,
                "PROD_OIDC_PROVIDER_ARN": PROVIDER,
                "PROD_OIDC_TOKEN_FILE": "/token",
                "PROD_STS_REGION": "cn-shanghai",
                "PROD_VPC_ENDPOINT_ENABLED": "true",
            },
            OidcKey(ROLE, PROVIDER, "/token", sts="sts-vpc.cn-shanghai.aliyuncs.com"),
        ),
        ({"PROD_ECS_METADATA": "node"}, EcsKey("node")),
        ({"PROD_ECS_METADATA": "node", "PROD_IMDSV1_DISABLED": "true"}, EcsKey("node", only_hardened=True)),
        ({"PROD_ECS_METADATA": "node", "PROD_ROLE_ARN": ROLE}, RoleKey(ROLE, EcsKey("node"))),
        ({"PROD_PROFILE": "ops", "HOME": "/h"}, ProfileKey("ops", Path("/h"))),
        ({"PROD_CREDENTIALS_FILE": "/c.ini", "HOME": "/h"}, ProfileKey("default", Path("/h"), Path("/c.ini"))),
        ({"PROD_CREDENTIALS_URI": "http://127.0.0.1:1/key"}, UriKey("http://127.0.0.1:1/key")),
    ],
)
def test_the_variables_say_where_a_key_comes_from(environ: dict[str, str], origin: Origin) -> None:
    assert origin_from(environ | {"OTHER_PROFILE": "x", "ALIBABA_CLOUD_PROFILE": "y"}, "PROD") == origin


@pytest.mark.parametrize(
    ("environ", "starts"),
    [
        ({}, ["PROD_ACCESS_KEY_ID is not set", "PROD_ACCESS_KEY_SECRET is not set"]),
        ({"PROD_SECURITY_TOKEN": "t"}, ["PROD_ACCESS_KEY_ID is not set", "PROD_ACCESS_KEY_SECRET is not set"]),
        ({"PROD_ROLE_ARN": ROLE}, ["PROD_ACCESS_KEY_ID is not set", "PROD_ACCESS_KEY_SECRET is not set"]),
        (KEY | {"PROD_PROFILE": "p"}, ["PROD_ACCESS_KEY_ID, PROD_ACCESS_KEY_SECRET and PROD_PROFILE name keys of 2"]),
        (
            {"PROD_PROFILE": "p", "PROD_ECS_METADATA": "n", "PROD_CREDENTIALS_URI": "ftp://x"},
            ["PROD_PROFILE, PROD_ECS_METADATA and PROD_CREDENTIALS_URI name keys of 3", "PROD_CREDENTIALS_URI must be"],
        ),
        (
            {"PROD_OIDC_TOKEN_FILE": "/t"},
            ["PROD_ROLE_ARN is not set: a role by OIDC", "PROD_OIDC_PROVIDER_ARN is not set"],
        ),
        (KEY | {"PROD_ROLE_ARN": "ota"}, ["PROD_ROLE_ARN must be the ARN"]),
        ({"PROD_CREDENTIALS_URI": "http://[x"}, ["PROD_CREDENTIALS_URI must be"]),
        ({"PROD_CREDENTIALS_URI": "http://h:0/"}, ["PROD_CREDENTIALS_URI must be"]),
        (
            {"PROD_ECS_METADATA": "n", "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "True"},
            ["PROD_ECS_METADATA needs the metadata service, which ALIBABA_CLOUD_ECS_METADATA_DISABLED forbids"],
        ),
    ],
)
def test_every_variable_that_is_missing_or_contradicts_is_named(environ: dict[str, str], starts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        origin_from(environ, "PROD")
    problems = caught.value.problems
    assert [problem[: len(start)] for problem, start in zip(problems, starts, strict=True)] == starts


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"PROD_PROFILE": "p"}, "PROD_PROFILE"),
        (KEY | {"PROD_ROLE_ARN": ROLE}, "PROD_ROLE_ARN"),
        ({"PROD_CREDENTIALS_URI": "http://127.0.0.1/"}, "PROD_CREDENTIALS_URI"),
    ],
)
def test_without_the_extra_the_sentence_says_what_to_install(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "alibabacloud_credentials", None)
    with pytest.raises(ConfigurationError) as caught:
        origin_from(environ, "PROD")
    said = f"{name} needs a package that is missing: pip install 'otabrake[cloud-credentials]'."
    assert caught.value.problems == (said,)
    assert origin_from(KEY, "PROD") == BASE


def test_a_damaged_key_is_named_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        origin_from({"PROD_ACCESS_KEY_ID": "id", "PROD_ACCESS_KEY_SECRET": "sec\u00a0ret"}, "PROD")
    assert "PROD_ACCESS_KEY_SECRET" in str(caught.value)
    assert "sec\u00a0ret" not in str(caught.value)


async def test_a_key_that_is_written_out_is_there_at_once_and_stays(clock: Clock) -> None:
    source = key_source_from(KEY, "PROD", now=clock)
    assert isinstance(source, StaticKey)
    assert source.current() == BASE
    assert await source.first() is None
    await source.keep_fresh()


def test_instances_with_one_prefix_share_one_source(clock: Clock) -> None:
    instances = {name: Instance(name, "cn-shanghai", credentials=prefix) for name, prefix in PREFIXES.items()}
    environ = KEY | {"STAGING_PROFILE": "p", "HOME": "/h"}
    keys = keys_from(environ, instances, now=clock, on_trouble=print)
    assert keys["a"] is keys["b"]
    assert isinstance(keys["c"], RefreshedKey)


def test_what_is_wrong_with_several_instances_is_said_at_once_and_each_once(clock: Clock) -> None:
    instances = {name: Instance(name, "cn-shanghai", credentials=prefix) for name, prefix in PREFIXES.items()}
    with pytest.raises(ConfigurationError) as caught:
        keys_from({"STAGING_ACCESS_KEY_ID": "i"}, instances, now=clock, on_trouble=print)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "PROD_ACCESS_KEY_ID",
        "PROD_ACCESS_KEY_SECRET",
        "STAGING_ACCESS_KEY_SECRET",
    ]


# Fetching anew


class EnoughError(Exception):
    """Ends a loop that would run for ever."""


class Issuer:
    """Hands out numbered keys of `minutes` (None: without an end), or fails while `is_down`."""

    def __init__(self, clock: Clock, *, minutes: float | None = 60) -> None:
        self.clock = clock
        self.minutes = minutes
        self.is_down = False
        self.asked_at: list[float] = []
        self.began_at = clock.at

    def __call__(self) -> FetchedKey:
        self.asked_at.append((self.clock.at - self.began_at).total_seconds() / 60)
        if self.is_down:
            raise KeyUnavailable("refused with HTTP 500")
        end = None if self.minutes is None else self.clock.at + timedelta(minutes=self.minutes)
        return FetchedKey(Credentials(f"STS.{len(self.asked_at)}", "s", "t"), end)


async def refreshed_to_the_end(source: RefreshedKey) -> None:
    with pytest.raises(EnoughError):
        await source.keep_fresh()


def source_of(issuer: Issuer, clock: Clock, *, minutes: float, heard: list[str] | None = None) -> RefreshedKey:
    """A source whose loop ends once the clock has moved on by `minutes`."""
    until = clock.at + timedelta(minutes=minutes)

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if clock.at > until:
            raise EnoughError

    return RefreshedKey(
        issuer, origin="RAM role r", now=clock, sleep=sleep, on_trouble=heard.append if heard is not None else print
    )


@pytest.mark.parametrize(
    ("minutes", "asked_at"),
    [(60, [0, 45, 90, 135]), (10, [0, 5, 10, 15]), (20, [0, 10, 20, 30]), (None, [0, 5, 10, 15])],
)
async def test_a_key_is_fetched_anew_well_before_it_ends(
    minutes: float | None, asked_at: list[float], clock: Clock
) -> None:
    issuer = Issuer(clock, minutes=minutes)
    source = source_of(issuer, clock, minutes=asked_at[-1])
    assert await source.first() is None
    assert source.current().key_id == "STS.1"
    await refreshed_to_the_end(source)
    assert issuer.asked_at == asked_at
    assert source.current().key_id == "STS.4"


async def test_an_old_key_serves_until_it_has_really_ended_while_a_new_one_is_tried_for_more_and_more_rarely(
    clock: Clock,
) -> None:
    issuer = Issuer(clock)
    heard: list[str] = []
    source = source_of(issuer, clock, minutes=58, heard=heard)
    await source.first()
    issuer.is_down = True
    await refreshed_to_the_end(source)
    assert source.current().key_id == "STS.1"
    tries = [round(60 * (at - 45)) for at in issuer.asked_at[1:]]
    assert tries[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert set(heard) == {"RAM role r: refused with HTTP 500"}

    clock.pass_by(180)
    with pytest.raises(CloudRefused) as caught:
        source.current()
    assert caught.value.code == KEY_ENDED
    assert caught.value.message == ("RAM role r: it ended at 04:12 UTC, and no new one came: refused with HTTP 500")


async def test_a_service_that_comes_back_is_used_again(clock: Clock) -> None:
    issuer = Issuer(clock)
    issuer.is_down = True
    source = source_of(issuer, clock, minutes=3)
    assert await source.first() == "RAM role r: refused with HTTP 500"
    with pytest.raises(CloudRefused) as caught:
        source.current()
    assert (caught.value.code, caught.value.message) == (KEY_UNAVAILABLE, "RAM role r: refused with HTTP 500")
    issuer.is_down = False
    await refreshed_to_the_end(source)
    assert source.current().key_id == "STS.2"


async def test_before_the_first_fetch_there_is_no_key(clock: Clock) -> None:
    source = RefreshedKey(Issuer(clock), origin="RAM role r", now=clock)
    with pytest.raises(CloudRefused) as caught:
        source.current()
    assert caught.value.message == "RAM role r: it has not been fetched yet"


async def test_a_key_that_has_ended_when_it_comes_is_no_key(clock: Clock) -> None:
    source = RefreshedKey(Issuer(clock, minutes=0), origin="RAM role r", now=clock)
    assert await source.first() == "RAM role r: the key that came had ended already"


@pytest.mark.parametrize("error", [TimeoutError("s3cret"), ValueError("s3cret")])
async def test_an_unforeseen_failure_is_named_without_its_words_and_tried_again(error: Exception, clock: Clock) -> None:
    results: list[Exception | FetchedKey] = [error, FetchedKey(BASE)]

    def fetch() -> FetchedKey:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    source = RefreshedKey(fetch, origin="RAM role r", now=clock)
    assert await source.first() == f"RAM role r: {type(error).__name__}"
    assert await source.first() is None


async def test_a_fetch_that_blocks_for_half_a_second_leaves_the_loop_alone(clock: Clock) -> None:
    def fetch() -> FetchedKey:
        threading.Event().wait(0.5)
        return FetchedKey(BASE)

    loop = asyncio.get_running_loop()
    first = asyncio.create_task(RefreshedKey(fetch, origin="x", now=clock).first())
    began, turns, longest = loop.time(), 0, 0.0
    while not first.done():
        before = loop.time()
        await asyncio.sleep(0.005)
        turns, longest = turns + 1, max(longest, loop.time() - before)
    assert await first is None
    assert loop.time() - began >= 0.5
    assert turns > 20
    assert longest < 0.3


async def test_a_fetch_that_hangs_is_given_up_and_not_joined_by_a_second(clock: Clock) -> None:
    answered = threading.Event()
    started: list[int] = []

    def fetch() -> FetchedKey:
        started.append(1)
        answered.wait(30)
        return FetchedKey(BASE)

    source = RefreshedKey(fetch, origin="x", now=clock)
    assert await source.first(0.05) == "x: no answer within 0.05 s"
    assert await source.first(0.05) == "x: no answer within 0.05 s"
    answered.set()
    assert await source.first(30) is None
    assert len(started) == 1


async def test_keys_are_fetched_first_and_kept_fresh_until_the_end_each_source_once(clock: Clock) -> None:
    issuer, renewed = Issuer(clock), asyncio.Event()

    async def sleep(seconds: float) -> None:
        clock.pass_by(seconds)
        if len(issuer.asked_at) > 2:
            renewed.set()
            await asyncio.Event().wait()

    source = RefreshedKey(issuer, origin="RAM role r", now=clock, sleep=sleep)
    async with kept_fresh([source, StaticKey(BASE), source]):
        assert source.current().key_id == "STS.1"
        await renewed.wait()
        assert source.current().key_id == "STS.3"
    assert issuer.asked_at == [0, 45, 90]


async def test_a_key_that_does_not_come_is_no_reason_not_to_start(clock: Clock) -> None:
    issuer = Issuer(clock)
    issuer.is_down = True
    async with kept_fresh([RefreshedKey(issuer, origin="RAM role r", now=clock)]):
        assert issuer.asked_at == [0]


# Alibaba's package against stand-ins


class StandIn:
    """STS, a credentials URI and the metadata service in one; a `refusal` answers everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.refusal: tuple[int, str] | None = None
        self.minutes = 60
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.answer(self)

            do_PUT = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0)).decode()
        query = dict(parse_qsl(url.query) + parse_qsl(body))
        self.asked.append((handler.command, url.path, query))
        status, text = self.refusal or (200, self._key(url.path, query))
        handler.send_response(status)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def _key(self, path: str, query: Mapping[str, str]) -> str:
        if path == "/latest/api/token":
            return "imds-token"
        end = datetime.now(UTC) + timedelta(minutes=self.minutes)
        key = {
            "AccessKeyId": f"STS.{len(self.asked)}",
            "AccessKeySecret": "fetched-s3cret",
            "SecurityToken": "fetched-t0ken",
            "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        }
        is_sts = query.get("Action", "").startswith("AssumeRole")
        return json.dumps({"Credentials": key, "RequestId": "AB-1"} if is_sts else {"Code": "Success", **key})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    service = StandIn()
    yield service
    service.close()


def assert_fetched(key: FetchedKey, *, key_id: str = "STS.1") -> None:
    assert key.credentials == Credentials(key_id, "fetched-s3cret", "fetched-t0ken")
    assert key.ends_at is not None
    assert timedelta(minutes=59) < key.ends_at - datetime.now(UTC) <= timedelta(minutes=60)


async def test_a_key_comes_from_a_uri_and_the_loop_is_free_meanwhile(stand_in: StandIn) -> None:
    source = key_source_from(
        {"PROD_CREDENTIALS_URI": f"{stand_in.url}/key?who=me"}, "PROD", now=lambda: datetime.now(UTC)
    )
    assert await source.first() is None
    assert source.current() == Credentials("STS.1", "fetched-s3cret", "fetched-t0ken")
    assert stand_in.asked == [("GET", "/key", {"who": "me"})]


def test_a_role_is_taken_with_a_key(stand_in: StandIn) -> None:
    assert_fetched(OfficialKey(RoleKey(ROLE, BASE, session="ops", sts=stand_in.url))())
    query = stand_in.asked[0][2]
    expected = {
        "Action": "AssumeRole",
        "AccessKeyId": "id1",
        "RoleArn": ROLE,
        "RoleSessionName": "ops",
        "DurationSeconds": "3600",
    }
    assert {name: query[name] for name in expected} == expected
    assert "s3cret" not in json.dumps(query)


def test_a_role_is_taken_with_a_key_that_had_to_be_fetched_itself(stand_in: StandIn) -> None:
    assert_fetched(OfficialKey(RoleKey(ROLE, UriKey(f"{stand_in.url}/key"), sts=stand_in.url))(), key_id="STS.2")
    assert (stand_in.asked[1][2]["AccessKeyId"], stand_in.asked[1][2]["SecurityToken"]) == ("STS.1", "fetched-t0ken")


def test_a_role_is_taken_with_a_token_from_a_file(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("oidc-token")
    assert_fetched(OfficialKey(OidcKey(ROLE, PROVIDER, str(tmp_path / "token"), sts=stand_in.url))())
    query = stand_in.asked[0][2]
    assert (query["Action"], query["OIDCToken"], query["RoleSessionName"]) == (
        "AssumeRoleWithOIDC",
        "oidc-token",
        "otabrake",
    )


def test_the_role_of_the_machine_is_asked_for_at_its_metadata_service(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", stand_in.url)
    assert_fetched(OfficialKey(EcsKey("node"))(), key_id="STS.2")
    assert [(method, path) for method, path, _ in stand_in.asked] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/ram/security-credentials/node"),
    ]
    assert not [thread for thread in threading.enumerate() if "APScheduler" in thread.name]


def test_a_key_in_its_last_quarter_of_an_hour_is_fetched_anew(stand_in: StandIn) -> None:
    stand_in.minutes = 14
    fetch = OfficialKey(RoleKey(ROLE, BASE, sts=stand_in.url))
    assert [fetch().credentials.key_id, fetch().credentials.key_id] == ["STS.1", "STS.2"]


REFUSED = json.dumps({"Code": "EntityNotExist.Role", "Message": "leak-s3cret", "RequestId": "AB-7"})
HALF_A_KEY = json.dumps({"Code": "Success", "AccessKeyId": "id", "AccessKeySecret": "leak-s3cret"})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, REFUSED), "refused with HTTP 404, EntityNotExist.Role (RequestId AB-7)"),
        ((500, "<html>leak-s3cret</html>"), "refused with HTTP 500"),
        ((200, HALF_A_KEY), "no usable answer"),
        ((200, "leak-s3cret"), "no usable answer"),
        ((200, "[]"), "no usable answer"),
    ],
)
@pytest.mark.parametrize("kind", ["role", "uri"])
def test_a_refusal_says_its_code_and_nothing_that_may_be_secret(
    answer: tuple[int, str],
    said: str,
    kind: str,
    stand_in: StandIn,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    stand_in.refusal = answer
    origin = RoleKey(ROLE, BASE, sts=stand_in.url) if kind == "role" else UriKey(f"{stand_in.url}/key")
    with pytest.raises(KeyUnavailable) as caught:
        OfficialKey(origin)()
    text = str(caught.value)
    assert text.startswith(said)
    out, err = capfd.readouterr()
    everything = " ".join((text, caplog.text, out, err))
    assert not [word for word in ("s3cret", "Signature", "127.0.0.1") if word in everything]


def test_an_answer_with_an_empty_key_is_none(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", stand_in.url)
    stand_in.refusal = (200, json.dumps({"Code": "Success", "Expiration": "2027-01-01T00:00:00Z"}))
    with pytest.raises(KeyUnavailable) as caught:
        OfficialKey(EcsKey("node"))()
    assert str(caught.value) == "the answer holds no key"


def test_a_service_that_is_not_there_is_named_by_the_failure_alone(stand_in: StandIn) -> None:
    stand_in.close()
    with pytest.raises(KeyUnavailable) as caught:
        OfficialKey(RoleKey(ROLE, BASE, sts=stand_in.url))()
    assert str(caught.value) == "no usable answer (ConnectionError)"


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        OfficialKey(OidcKey(ROLE, PROVIDER, str(tmp_path / "token"), sts="http://127.0.0.1:1"))()
    assert str(caught.value) == f"{tmp_path / 'token'} cannot be read (FileNotFoundError)"


def test_after_a_failure_a_mended_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.ini"
    fetch = OfficialKey(ProfileKey("default", tmp_path, file))
    with pytest.raises(KeyUnavailable):
        fetch()
    file.write_text("[default]\ntype = access_key\naccess_key_id = id1\naccess_key_secret = s3#cr%et\n")
    assert fetch() == FetchedKey(Credentials("id1", "s3#cr%et"))


SEES_ONLY_WHAT_IT_IS_TOLD = """
import sys
from bot.alibaba.key_origins import EcsKey, RoleKey
from bot.alibaba.credentials import Credentials
from bot.alibaba.official_keys import OfficialKey, _provider_of
from bot.alibaba import key_settings
assert not [name for name in sys.modules if name.startswith(("alibabacloud", "Tea", "apscheduler"))]
provider = _provider_of(RoleKey("acs:ram::1:role/told", Credentials("told", "told")))
print({key: value for key, value in vars(provider).items() if isinstance(value, str)})
import logging
print(logging.getLogger("credentials").handlers)
"""


def test_the_package_is_loaded_on_first_use_and_reads_nothing_of_the_environment() -> None:
    environ = {
        **os.environ,
        "ALIBABA_CLOUD_ROLE_ARN": "guessed",
        "ALIBABA_CLOUD_ROLE_SESSION_NAME": "guessed",
        "ALIBABA_CLOUD_STS_REGION": "guessed",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "guessed",
        "ALIBABA_CLOUD_SECURITY_TOKEN": "guessed",
    }
    done = subprocess.run(
        [sys.executable, "-c", SEES_ONLY_WHAT_IT_IS_TOLD], env=environ, capture_output=True, text=True, timeout=50
    )
    assert done.stderr == ""
    values, handlers = done.stdout.splitlines()
    assert "told" in values
    assert "guessed" not in values
    assert handlers == "[]"


# Profiles

CLI = {
    "current": "ak",
    "profiles": [
        {"name": "ak", "mode": "AK", "access_key_id": "id1", "access_key_secret": "s3#cret"},
        {"name": "sts", "mode": "StsToken", "access_key_id": "i", "access_key_secret": "s", "sts_token": "t"},
        {
            "name": "role",
            "mode": "RamRoleArn",
            "access_key_id": "i",
            "access_key_secret": "s",
            "ram_role_arn": ROLE,
            "ram_session_name": "me",
            "expired_seconds": 900,
            "sts_region": "cn-shanghai",
            "enable_vpc": True,
            "external_id": "x",
        },
        {"name": "chain", "mode": "ChainableRamRoleArn", "source_profile": "ecs", "ram_role_arn": ROLE},
        {"name": "ring", "mode": "ChainableRamRoleArn", "source_profile": "ring", "ram_role_arn": ROLE},
        {"name": "stray", "mode": "ChainableRamRoleArn", "source_profile": "gone", "ram_role_arn": ROLE},
        {"name": "ecs", "mode": "EcsRamRole", "ram_role_name": "node"},
        {
            "name": "oidc",
            "mode": "OIDC",
            "ram_role_arn": ROLE,
            "oidc_provider_arn": PROVIDER,
            "oidc_token_file": "/t",
            "role_session_name": "me",
        },
        {"name": "sso", "mode": "CloudSSO"},
        {"name": "half", "mode": "AK", "access_key_id": "id1"},
        {"name": "odd", "mode": "Odd"},
        "not a profile",
    ],
}
INI = """
[ini]
type = access_key
access_key_id = id1
access_key_secret = s3#cr%et
[ini-role]
type = ram_role_arn
access_key_id = i
access_key_secret = s
role_arn = acs:ram::123:role/ota
role_session_name = me
[ini-ecs]
type = ecs_ram_role
role_name = node
[ini-oidc]
type = oidc_role_arn
role_arn = acs:ram::123:role/ota
oidc_provider_arn = acs:ram::123:oidc-provider/ack
oidc_token_file_path = /t
[ini-half]
type = ram_role_arn
access_key_id = i
access_key_secret = s
[ini-odd]
type = rsa_key_pair
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in ((".aliyun/config.json", json.dumps(CLI)), (".alibabacloud/credentials.ini", INI)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


SOME = Credentials("i", "s")


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("ak", Credentials("id1", "s3#cret")),
        ("sts", Credentials("i", "s", "t")),
        (
            "role",
            RoleKey(ROLE, SOME, session="me", sts="sts-vpc.cn-shanghai.aliyuncs.com", seconds=900, external_id="x"),
        ),
        ("chain", RoleKey(ROLE, EcsKey("node"))),
        ("ecs", EcsKey("node")),
        ("oidc", OidcKey(ROLE, PROVIDER, "/t", session="me")),
        ("ini", Credentials("id1", "s3#cr%et")),
        ("ini-role", RoleKey(ROLE, SOME, session="me")),
        ("ini-ecs", EcsKey("node")),
        ("ini-oidc", OidcKey(ROLE, PROVIDER, "/t")),
    ],
)
def test_a_profile_is_read_as_it_is_written(name: str, origin: Origin, home: Path) -> None:
    assert read_profile(ProfileKey(name, home)) == origin


def test_a_login_of_the_command_line_is_left_to_the_package(home: Path) -> None:
    assert read_profile(ProfileKey("sso", home)) == CliKey("sso", home / ".aliyun" / "config.json")
    with pytest.raises(KeyUnavailable):
        OfficialKey(ProfileKey("sso", home))()


def test_a_token_of_a_profile_is_a_key_without_a_known_end(home: Path) -> None:
    assert OfficialKey(ProfileKey("sts", home))() == FetchedKey(Credentials("i", "s", "t"))


def test_a_file_that_is_named_is_the_only_one_that_is_read(home: Path) -> None:
    ini = home / ".alibabacloud" / "credentials.ini"
    assert read_profile(ProfileKey("ini-ecs", home, ini)) == EcsKey("node")
    with pytest.raises(KeyUnavailable) as caught:
        read_profile(ProfileKey("ak", home, ini))
    assert str(caught.value) == f"there is no profile ak in {ini}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ring", "does not lead to a key"),
        ("stray", "profile stray builds on profile gone"),
        ("half", "profile half has no access_key_secret"),
        ("odd", "not known: Odd"),
        ("ini-half", "profile ini-half has no role_arn"),
        ("ini-odd", "not known: rsa_key_pair"),
        ("nobody", "there is no profile nobody in"),
    ],
)
def test_a_profile_that_leads_to_no_key_says_why(name: str, words: str, home: Path) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        read_profile(ProfileKey(name, home))
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["s3cret", "[]", "{}", '{"profiles": 7}', "[x\ns3cret", "\x00"])
@pytest.mark.parametrize("is_ini", [True, False])
def test_a_file_that_cannot_be_read_is_named_and_not_quoted(text: str, is_ini: bool, tmp_path: Path) -> None:
    file = tmp_path / ("c.ini" if is_ini else ".aliyun/config.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(KeyUnavailable) as caught:
        read_profile(ProfileKey("x", tmp_path, file if is_ini else None))
    assert str(file) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_origin_has_words_for_a_sentence_and_shows_no_secret() -> None:
    origins = (
        RoleKey("acs:r", Credentials("id", "s3cret", "s3cret")),
        OidcKey("acs:o", PROVIDER, "/t"),
        EcsKey("node"),
        UriKey("http://h/?s3cret"),
        ProfileKey("p", Path("/h")),
        CliKey("c", Path("/h")),
    )
    assert [str(origin) for origin in origins] == [
        "RAM role acs:r",
        "RAM role acs:o by OIDC",
        "ECS RAM role node",
        "the credentials URI",
        "profile p",
        "profile c",
    ]
    assert "s3cret" not in repr(origins)
