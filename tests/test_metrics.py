"""`/metrics`: scraped over HTTP, read by Prometheus' own parser, with few values in each label, whatever happens."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from bot.alibaba.calls import CallWatch
from bot.audit import Entry, EntryName
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.exchange import Post, PostKind
from bot.metrics import MOST_VALUES, Metrics, version
from bot.model import Notice, Outcome, OutcomeCode
from bot.ports import Lease, Transition, of_delivery, of_proposal
from bot.ports.telemetry import (
    Acknowledged,
    AckResult,
    CallMade,
    Claimed,
    LeaseTaken,
    Posted,
    PostResult,
    Received,
    TurnedAway,
    WorkFailed,
    Written,
)
from bot.proposals import State
from bot.sandbox import server
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.server import Sandbox, sandbox_settings
from bot.server import served
from bot.storage.census import Census, DatabaseWatch
from bot.storage.database import open_database
from bot.storage.observed import ObservedLeases, ObservedStore
from bot.storage.store import SqlStore
from bot.storage.tables import SCHEMA
from tests.conftest import Clock
from tests.own_postgres import own_postgres
from tests.serving import processes
from tests.test_app import BECAUSE, INCIDENT, STATIC, TASKS, incident, settled
from tests.test_cli import GOOD, run
from tests.test_health import Seen
from tests.values import AT, delivery, offer, proposal

ROOT = Path(__file__).parents[1]
ON_CALL = "U0ONCALLA1"
OURS = "otabrake_"


class Scraped:
    """What one scrape said."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.families = list(text_string_to_metric_families(body))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of one series; None if it is not there."""
        found = [each.value for each in self.samples if each.name == OURS + name and each.labels == labels]
        assert len(found) <= 1
        return found[0] if found else None

    def values(self, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


async def scrape(metrics: Metrics) -> Scraped:
    """Over HTTP, on a port of its own."""
    async with served(metrics.app) as port, httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scraped(answer.text)


@pytest.fixture
def _with_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        server, "sandbox_settings", lambda folder, **given: replace(sandbox_settings(folder, **given), metrics_port=0)
    )


with_metrics = pytest.mark.usefixtures("_with_metrics")


def of_bot(at: Sandbox) -> Metrics:
    assert at.bot.metrics is not None
    return at.bot.metrics


@pytest.fixture
def metrics() -> Metrics:
    """Of no bot: what the test notes is all that there is."""
    return Metrics(Seen(Census(SCHEMA)), clock=lambda: AT, build={"version": "1"})  # type: ignore[arg-type]


# The whole bot.


@with_metrics
async def test_a_cancel_is_counted_from_the_acknowledgement_to_its_outcome(clock: Clock) -> None:
    async with incident(clock) as (at, person):
        at.iot.state.faults.add(Fault(FaultKind.THROTTLE, action=TASKS, calls=1))
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        await person(ON_CALL).types("cancle X1")
        await person("U0MEMBER01").types(f"cancel {STATIC} on prod-shanghai")
        await person(ON_CALL).clicks(copies=2)
        await settled(at)
        await person(ON_CALL).http.post(f"{at.bot_url}/slack/events", content=b"command=/ota")
        seen = await scrape(of_bot(at))
    assert seen("acks_total", kind="command", result="written") == 2
    assert seen("acks_total", kind="command", result="answered_at_once") == 1
    assert seen("acks_total", kind="click", result="written") == 1
    assert seen("acks_total", kind="click", result="duplicate") == 1
    assert seen("duplicates_total", kind="click") == 1
    assert seen("ack_seconds_count", kind="command") == 3
    assert seen("gate_refusals_total", why="signature or time") == 1
    assert seen("decisions_total", operation="job.cancel", effect="allow") == 2
    assert seen("decisions_total", operation="job.cancel", effect="deny") == 1
    [outcome] = [each for each in seen.samples if each.name == "otabrake_outcomes_total"]
    assert (outcome.labels["operation"], outcome.value) == ("job.cancel", 1)
    assert seen("proposal_stage_seconds_count", stage="total") == 1
    assert seen("api_calls_total", action=TASKS, code="ok") == 1
    assert seen("api_throttled_total", action=TASKS) == 1
    assert seen("api_call_seconds_count", action=TASKS) == 2
    assert seen("api_slot_wait_seconds_count", action=TASKS) == 2
    assert (seen("posts_total", result="delivered") or 0) > 3
    assert (seen("posts_total", result="given_up"), seen("takeovers_total", kind="proposal")) == (0, 0)
    assert seen("database_up") == 1
    assert (seen("outbox_posts"), seen("outbox_lag_seconds")) == (0, 0)


@with_metrics
async def test_what_waits_is_told_as_it_is_at_the_scrape(clock: Clock, any_database_url: str) -> None:
    async with incident(clock, database_url=any_database_url) as (at, person):
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        await at.bot.database.run(lambda connection: connection.execute(text(_OWED_BY_NOBODY), {"at": clock()}))
        clock.pass_by(90)
        seen = await scrape(of_bot(at))
        digest = at.bot.policy.digest[:12] if at.bot.policy is not None else ""
    assert seen("proposals", state="offered") == 1
    assert seen("proposals", state="following") == 0
    assert seen("proposals", state="finished") is None
    assert (seen("outbox_posts"), seen("outbox_lag_seconds")) == (1, 90)
    assert seen("build_info", version=version(), schema=SCHEMA, policy=digest) == 1


_OWED_BY_NOBODY = """
INSERT INTO outbox (lane, created_at, attempts, body) VALUES ('p9', :at, 0, '{"kind": "of a newer version"}')
"""


@with_metrics
async def test_metrics_are_never_served_where_slack_can_reach_them(clock: Clock) -> None:
    async with incident(clock) as (at, person), served(of_bot(at).app) as port:
        http = person(ON_CALL).http
        assert (await http.get(f"{at.bot_url}/metrics")).status_code == 404
        assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 404
        assert (await http.post(f"http://127.0.0.1:{port}/metrics")).status_code == 405
        assert (await http.post(f"http://127.0.0.1:{port}/slack/events")).status_code == 404


async def test_without_a_port_there_are_no_metrics(clock: Clock) -> None:
    async with incident(clock) as (at, _):
        assert at.bot.metrics is None


@with_metrics
async def test_two_bots_in_one_process_count_apart(clock: Clock) -> None:
    async with incident(clock) as (first, person), incident(clock) as (second, _):
        await person(ON_CALL).types("help")
        assert (await scrape(of_bot(first)))("acks_total", kind="command", result="answered_at_once") == 1
        assert (await scrape(of_bot(second)))("acks_total", kind="command", result="answered_at_once") is None


@with_metrics
async def test_no_job_person_channel_or_word_is_a_label(clock: Clock) -> None:
    async with incident(clock) as (at, person):
        for user in (ON_CALL, "U0MEMBER01", "U0GUEST0001", "U0RELEASE1"):
            await person(user).types(f"cancel {STATIC} on prod-shanghai because sesame")
        await person(ON_CALL).types("cancel n0suchj0b")
        await person(ON_CALL).clicks()
        seen = await scrape(of_bot(at))
        known = {f"{row}" for row in await at.bot.database.read(_every_id)}
    assert len(known) == 8
    for each in (*known, STATIC, INCIDENT, ON_CALL, "U0MEMBER01", "n0suchj0b", "sesame", "prod-shanghai"):
        assert each not in seen.body


def _every_id(connection: Any) -> list[str]:
    statement = "SELECT delivery_id FROM inbox UNION SELECT proposal_id FROM proposals UNION SELECT nonce FROM calls"
    return list(connection.execute(text(statement)).scalars())


# A database that is away.


@with_metrics
@pytest.mark.postgres
async def test_while_the_database_is_silent_a_scrape_says_within_two_seconds_what_is_known(clock: Clock) -> None:
    with own_postgres() as silent:
        async with incident(clock, database_url=silent.new_database()) as (at, person):
            await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
            silent.silence()
            try:
                async with served(of_bot(at).app) as port, httpx.AsyncClient() as http:
                    began = time.monotonic()
                    urls = [f"http://127.0.0.1:{port}/metrics"] * 20 + [f"{at.bot_url}/healthz"]
                    answers = await asyncio.gather(*(http.get(url, timeout=5) for url in urls))
                    assert time.monotonic() - began < 2
                    ready = await http.get(f"{at.bot_url}/readyz", timeout=5)
            finally:
                silent.go_on()
    assert {answer.status_code for answer in answers} == {200}
    assert ready.json() == {"status": "not ready", "reasons": ["the database does not answer"]}
    seen = Scraped(answers[0].text)
    assert seen("database_up") == 0
    assert seen("acks_total", kind="command", result="written") == 1
    assert seen("proposals", state="offered") is None
    assert seen("outbox_lag_seconds") is None


# Each thing that is noted.


async def test_every_series_of_ours_is_named_as_prometheus_wants_it(metrics: Metrics) -> None:
    for happening in everything():
        metrics.note(happening)
    seen = await scrape(metrics)
    ours = [family for family in seen.families if family.name.startswith(OURS)]
    assert len(ours) == 21
    for family in ours:
        assert family.documentation.endswith(".")
        assert "created" not in family.name
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{family.name}_total"}
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
    assert {family.name for family in seen.families if not family.name.startswith(OURS)} <= {
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_cpu_seconds",
        "process_open_fds",
        "process_max_fds",
    }


def everything() -> Iterator[Any]:
    over = proposal(
        state=State.FINISHED,
        offer=offer(),
        outcome=Outcome(OutcomeCode.DENIED, Notice("No.")),
        changed_at=AT + timedelta(seconds=3),
    )
    ended = Entry(EntryName.ENDED, AT, ON_CALL, "p1", {"outcome": "denied"})
    lease = Lease(of_delivery("d1"), "me", 2)
    yield TurnedAway(401, "signature or time")
    yield Acknowledged("command", AckResult.WRITTEN, 0.002)
    yield Received(delivery(), is_new=False)
    yield Written((ended,), Transition(proposal(), over, (ended,)))
    yield Claimed(lease)
    yield WorkFailed(lease)
    yield LeaseTaken(lease)
    yield CallMade("prod", TASKS, "cancel_tasks", "Throttling.User", "Throttling.User", 0.1, 0.2, is_throttled=True)
    yield Posted(PostResult.PUT_OFF)


async def test_of_a_database_of_another_version_only_that_it_answers_is_told() -> None:
    metrics = Metrics(Seen(Census("0001")), clock=lambda: AT, build={})  # type: ignore[arg-type]
    seen = await scrape(metrics)
    assert (seen("database_up"), seen("outbox_posts"), seen("proposals", state="offered")) == (1, None, None)


async def test_every_metric_is_in_the_readme(metrics: Metrics) -> None:
    seen = await scrape(metrics)
    readme = (ROOT / "README.md").read_text()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in seen.families}
    assert {name for name in names if name.startswith(OURS) and f"`{name}`" not in readme} == set()


def test_who_serves_no_metrics_does_not_load_their_library() -> None:
    check = "import sys, bot.server, bot.wiring; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=50, check=False).returncode == 0


async def test_what_slack_asks_to_see_whether_we_are_there_is_no_refusal(metrics: Metrics) -> None:
    metrics.note(TurnedAway(200, "ssl check"))
    assert (await scrape(metrics)).values("why") == set()


async def test_a_call_that_was_not_made_is_counted_and_has_no_duration(metrics: Metrics) -> None:
    metrics.note(CallMade("prod", TASKS, "cancel_tasks", "not_made", "not_made", 9.0, None))
    seen = await scrape(metrics)
    assert seen("api_calls_total", action=TASKS, code="not_made") == 1
    assert seen("api_call_seconds_count", action=TASKS) is None
    assert seen("api_slot_wait_seconds_sum", action=TASKS) == 9


async def test_a_flood_of_new_codes_and_operations_makes_no_flood_of_series(metrics: Metrics) -> None:
    for number in range(3 * MOST_VALUES):
        code = f"Odd{number}.Code"
        metrics.note(CallMade("prod", TASKS, "cancel_tasks", code, code, 0, 0.1))
        entry = Entry(EntryName.REFUSED, AT, ON_CALL, None, {"why": "denied", "operation": f"odd.{number}"})
        metrics.note(Written((entry,)))
    seen = await scrape(metrics)
    assert len(seen.values("code")) == len(seen.values("operation")) == MOST_VALUES + 1
    assert seen("api_calls_total", action=TASKS, code="other") == 2 * MOST_VALUES
    assert len(seen.samples) < 4 * MOST_VALUES


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (None, "ok"),
        (CloudRefused("iot.ota.jobhasfinished", "x"), "iot.ota.JobHasFinished"),
        (CloudRefused("IOT.OTA.JOBHASFINISHED", "x"), "iot.ota.JobHasFinished"),
        (CloudRefused("iot.ota.Gw00000017", "x"), "iot.ota"),
        (CloudRefused("Odd", "x"), "Odd"),
        (CloudRefused("Device gw-1 is odd", "x"), "other"),
        (CloudRefused("x" * 41, "x"), "other"),
        (CloudRefused("", "x"), "other"),
        (CloudThrottled("Throttling.User", "x"), "Throttling.User"),
        (CloudThrottled("Throttling.User.Gw17", "x"), "Throttling.User"),
        (CloudLost("no answer within 5 s"), "lost"),
        (CloudUnreachable("ConnectError"), "unreachable"),
        (asyncio.CancelledError(), "cancelled"),
        (RuntimeError("x"), "broken"),
    ],
)
def test_an_unknown_code_is_cut_down_to_its_beginning(error: BaseException | None, family: str) -> None:
    noted: list[Any] = []

    class Told:
        note = staticmethod(noted.append)

    watch = CallWatch(Told(), instance="prod", action=TASKS, step="stop")
    watch.__enter__()
    watch.__exit__(type(error) if error else None, error, None)
    [made] = noted
    assert made.family == family


async def test_what_a_dead_process_left_is_a_takeover_and_what_failed_here_is_not(
    clock: Clock, sqlite_url: str
) -> None:
    database = open_database(sqlite_url)
    metrics = Metrics(DatabaseWatch(database, owner="me", schema=SCHEMA), clock=clock, build={})
    gone = SqlStore(database, clock=clock, owner="gone")
    mine = ObservedStore(database, clock=clock, owner="me", telemetry=metrics)
    leases = ObservedLeases(database, owner="me", telemetry=metrics)
    assert await gone.receive(delivery())
    assert await mine.claim_deliveries() == ()
    await database.run(lambda connection: connection.execute(text("UPDATE leases SET until = 1")))
    [(lease, _)] = await mine.claim_deliveries()
    await leases.fail(lease)
    assert len(await mine.claim_deliveries()) == 1
    await mine.record(posts=(Post(PostKind.LINE, "p1", Notice("x")),))
    assert len(await mine.claim_lanes()) == 1
    seen = await scrape(metrics)
    assert seen("takeovers_total", kind="delivery") == 1
    assert seen("takeovers_total", kind="lane") == 0  # nobody had it before
    assert seen("work_failures_total", kind="delivery") == 1
    assert seen("leases_held", kind="delivery") == 1
    await database.close()


async def test_work_that_somebody_else_took_is_counted(clock: Clock, sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    metrics = Metrics(DatabaseWatch(database, owner="me", schema=SCHEMA), clock=clock, build={})
    leases = ObservedLeases(database, owner="me", telemetry=metrics)
    [lease] = await leases.claim([of_proposal("p1")])
    await database.run(lambda connection: connection.execute(text("UPDATE leases SET owner = 'other', token = 9")))
    assert (await leases.renew([lease])).taken == (lease,)
    assert (await scrape(metrics))("leases_lost_total", kind="proposal") == 1
    await database.close()


# The port.


def test_a_metrics_port_that_is_taken_ends_the_start_with_2_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", env=GOOD | {"PORT": "0", "METRICS_PORT": port})
    assert result.exit_code == 2
    assert f"Cannot listen on 127.0.0.1 port {port}" in result.output
    assert "choose another (HOST, METRICS_PORT)" in result.output


async def test_a_served_bot_answers_on_its_metrics_port(tmp_path: Path) -> None:
    async with a_process(tmp_path) as (url, log, http):
        answer = await http.get(f"{url}/metrics")
        assert Scraped(answer.text)("database_up") == 1
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert log["metrics_port"] != log["port"]


@asynccontextmanager
async def a_process(folder: Path) -> AsyncIterator[tuple[str, dict[str, Any], httpx.AsyncClient]]:
    from tests.crash.world import world

    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(world(folder, f"sqlite:///{folder / 'otabrake.db'}", jobs=[]))
        start = await stack.enter_async_context(processes())
        http = await stack.enter_async_context(httpx.AsyncClient())
        process = await (await start(dict(at.settings) | {"METRICS_PORT": "0"})).serving()
        [log] = process.logged("serving")
        yield f"http://127.0.0.1:{log['metrics_port']}", json.loads(json.dumps(log)), http
