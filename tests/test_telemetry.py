"""The canonical lines: one for each delivery, signed call and finished proposal, and nothing secret in any of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import structlog
from slack_sdk.signature import SignatureVerifier
from sqlalchemy import text
from structlog.testing import capture_logs

from bot.audit import Entry, EntryName
from bot.model import Notice, Outcome, OutcomeCode
from bot.ports import Lease, Transition, of_delivery
from bot.ports.telemetry import Acknowledged, AckResult, CallMade, Claimed, Happening, Received, Written
from bot.proposals import State
from bot.sandbox import server
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.server import Sandbox
from bot.storage.database import open_database
from bot.storage.observed import ObservedStore
from bot.storage.store import SqlStore
from bot.telemetry import REMEMBERED, CanonicalLines, Everybody, effect_of, spans_of
from tests.conftest import Clock
from tests.test_app import BECAUSE, INCIDENT, STATIC, TASKS, incident, rename, settled
from tests.values import AT, REPLY_TO, delivery, offer, proposal

Line = MutableMapping[str, Any]
EVERY = {
    "delivery",
    "kind",
    "result",
    "operation",
    "instance",
    "job",
    "actor",
    "channel",
    "decision",
    "why",
    "proposal",
    "state",
    "ack_ms",
    "answer_ms",
    "is_duplicate",
}
ON_CALL = "U0ONCALLA1"


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    with capture_logs() as captured:
        yield captured


def of(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


def deliveries(lines: list[Line]) -> list[Line]:
    found = of(lines, "delivery:ended")
    assert all(line.keys() >= EVERY for line in found)
    return found


async def test_a_cancel_has_a_line_for_each_delivery_each_call_and_its_end(clock: Clock, lines: list[Line]) -> None:
    async with incident(clock) as (at, person):
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        clock.pass_by(20)
        await person(ON_CALL).clicks()
        [effect] = at.fleet.history
    asked, clicked = deliveries(lines)
    known = {"operation": "job.cancel", "instance": "prod-shanghai", "job": STATIC, "actor": ON_CALL}
    known |= {"channel": INCIDENT, "result": "answered", "is_duplicate": False, "why": None}
    assert asked | known | {"kind": "command", "state": "received", "decision": None} == asked
    assert clicked | known | {"kind": "click", "state": "approved", "decision": "allow"} == clicked
    assert asked["proposal"] == clicked["proposal"]
    assert asked["delivery"] != clicked["delivery"]
    assert all(0 < line["ack_ms"] < 3000 for line in (asked, clicked))

    [cancel] = [line for line in of(lines, "call:ended") if line["action"] == TASKS]
    assert cancel["request_id"] == effect.request_id
    assert (cancel["step"], cancel["job"], cancel["code"], cancel["attempt"]) == ("cancel_tasks", STATIC, "ok", 1)
    assert cancel["proposal"] == clicked["proposal"]
    assert cancel["ms"] > 0
    reads = [line for line in of(lines, "call:ended") if line["action"] != TASKS]
    assert {line["step"] for line in reads} == {"preview", "stop", "follow"}
    assert all(line["job"] == STATIC and line["request_id"] for line in reads)
    assert len({line["request_id"] for line in reads}) == len(reads)

    [ended] = of(lines, "proposal:ended")
    assert ended["proposal"] == clicked["proposal"]
    assert (ended["outcome"], ended["calls"], ended["request_ids"]) == ("stopped", 1, [effect.request_id])
    assert ended["stopped"] == effect.tasks
    assert (ended["offer_seconds"], ended["yes_seconds"], ended["accept_seconds"]) == (0.0, 20.0, 0.0)
    assert ended["total_seconds"] == pytest.approx(20 + ended["follow_seconds"])
    assert {line["event"] for line in lines} <= {"delivery:ended", "call:ended", "proposal:ended", "migrated"}


@pytest.mark.parametrize(
    ("user", "typed", "known"),
    [
        (ON_CALL, "cancle X1", {"result": "answered_at_once", "delivery": None, "kind": "command"}),
        (ON_CALL, f"status {STATIC}", {"operation": "job.show", "decision": "allow", "state": None}),
        ("U0MEMBER01", f"cancel {STATIC} on prod-shanghai", {"operation": "job.cancel", "decision": "deny"}),
        ("U0RELEASE1", f"cancel {STATIC} --dry-run", {"operation": "job.cancel", "decision": "deny", "why": None}),
        (ON_CALL, "cancel n0suchj0b", {"decision": None, "job": "n0suchj0b"}),
        ("U0GUEST0001", f"cancel {STATIC}", {"decision": None, "why": "not let in"}),
    ],
)
async def test_whatever_comes_of_a_command_it_has_one_line(
    clock: Clock, lines: list[Line], user: str, typed: str, known: dict[str, object]
) -> None:
    async with incident(clock) as (_, person):
        await person(user).types(typed)
    [line] = deliveries(lines)
    assert line | known | {"actor": user, "channel": INCIDENT} == line


async def test_a_click_that_does_not_count_says_on_what_it_was_and_why(clock: Clock, lines: list[Line]) -> None:
    async with incident(clock) as (_, person):
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        await person("U0RELEASE1").clicks("proposal.dismiss")
        await person(ON_CALL).clicks("proposal.dismiss")
    asked, denied, dismissed = deliveries(lines)
    known = {"operation": "job.cancel", "instance": "prod-shanghai", "job": STATIC, "proposal": asked["proposal"]}
    assert denied | known | {"kind": "click", "decision": "deny", "why": "denied", "actor": "U0RELEASE1"} == denied
    assert dismissed | known | {"state": "finished", "decision": None} == dismissed
    [ended] = of(lines, "proposal:ended")
    assert (ended["outcome"], ended["ended_by"]) == ("dismissed", ON_CALL)


@pytest.mark.parametrize("is_socket_mode", [False, True], ids=["http", "socket"])
async def test_each_copy_has_a_line_and_says_that_it_is_one(
    clock: Clock, lines: list[Line], is_socket_mode: bool
) -> None:
    async with incident(clock, is_socket_mode=is_socket_mode) as (at, person):
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}", copies=3)
        await settled(at)
    found = deliveries(lines)
    assert sorted(line["result"] for line in found) == ["answered", "duplicate", "duplicate"]
    assert [line["is_duplicate"] for line in found] == [line["result"] == "duplicate" for line in found]
    assert all(line["ack_ms"] is not None and line["actor"] == ON_CALL for line in found)


async def test_what_could_not_be_written_is_an_error_with_the_reference_that_the_person_was_shown(
    clock: Clock, lines: list[Line], any_database_url: str
) -> None:
    async with incident(clock, database_url=any_database_url) as (at, person):
        await rename(at, "inbox", "gone")
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        told = person(ON_CALL).was_told()
        await rename(at, "gone", "inbox")
    [line] = deliveries(lines)
    assert (line["result"], line["log_level"], line["delivery"]) == ("not_written", "error", None)
    assert f"Reference: {line['reference']}" in told
    assert line["why"]


async def test_what_ends_at_the_gate_is_told_and_is_no_delivery(clock: Clock, lines: list[Line]) -> None:
    async with incident(clock) as (at, person):
        await person(ON_CALL).http.post(f"{at.bot_url}/slack/events", content=b"command=/ota")
    assert [(line["status"], line["why"]) for line in of(lines, "refused at the gate")] == [(401, "signature or time")]
    assert deliveries(lines) == []


async def test_a_button_that_is_none_of_ours_has_a_line(clock: Clock, lines: list[Line]) -> None:
    async with incident(clock) as (at, person):
        body = {
            "type": "block_actions",
            "team": {"id": "T0SANDBOX1"},
            "user": {"id": ON_CALL, "team_id": "T0SANDBOX1"},
            "channel": {"id": INCIDENT},
            "trigger_id": "1",
            "actions": [{"action_id": "somebody.elses", "value": "x", "type": "button", "block_id": "b"}],
        }
        await person(ON_CALL).http.post(**signed(at, clock, body))
    [line] = deliveries(lines)
    assert (line["result"], line["kind"], line["actor"], line["channel"]) == ("unknown", "click", ON_CALL, INCIDENT)


def signed(at: Sandbox, clock: Clock, body: dict[str, Any]) -> dict[str, Any]:
    raw, now = str(httpx.QueryParams({"payload": json.dumps(body)})), str(int(clock().timestamp()))
    signature = SignatureVerifier(server.SIGNING_SECRET).generate_signature(timestamp=now, body=raw)
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": now,
        "x-slack-signature": signature or "",
    }
    return {"url": f"{at.bot_url}/slack/events", "content": raw, "headers": headers}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(FaultKind.THROTTLE, action=TASKS, calls=1), "Throttling"),
        (Fault(FaultKind.HTML_PAGE, action=TASKS, calls=1), "lost"),
        (Fault(FaultKind.REFUSE, action=TASKS, code="Forbidden.RAM", status=403, calls=1), "Forbidden.RAM"),
    ],
)
async def test_a_call_that_fails_says_its_code_and_the_next_one_its_attempt(
    clock: Clock, lines: list[Line], fault: Fault, code: str
) -> None:
    async with incident(clock) as (at, person):
        at.iot.state.faults.add(fault)
        await person(ON_CALL).types(f"cancel {STATIC} {BECAUSE}")
        await person(ON_CALL).clicks()
    made = [line for line in of(lines, "call:ended") if line["action"] == TASKS]
    assert made[0]["code"].startswith(code)
    # A lost call is sent once more as it was: that is the same attempt.
    attempts = {"Throttling": [1, 2], "lost": [1, 1], "Forbidden.RAM": [1]}
    assert [line["attempt"] for line in made] == attempts[code]
    assert len({line["proposal"] for line in made}) == 1


async def test_what_another_process_received_is_told_by_the_one_that_answers_it(
    clock: Clock, lines: list[Line], any_database_url: str
) -> None:
    database = open_database(any_database_url)
    gone = SqlStore(database, clock=clock, owner="gone")
    assert await gone.receive(delivery(received_at=clock()))
    await database.run(lambda connection: connection.execute(text("UPDATE leases SET until = 1")))
    clock.pass_by(4)
    async with incident(clock, database_url=any_database_url) as (at, _):
        await at.bot.road.sweep_once()
        await settled(at)
    [line] = deliveries(lines)
    assert (line["delivery"], line["kind"], line["actor"]) == ("d-command:1", "command", ON_CALL)
    assert (line["ack_ms"], line["answer_ms"]) == (None, 4000.0)
    await database.close()


# Nothing secret.


async def test_no_line_holds_a_secret_an_address_or_what_somebody_wrote(clock: Clock, lines: list[Line]) -> None:
    async with incident(clock) as (at, person):
        at.iot.state.faults.add(
            Fault(FaultKind.REFUSE, action="QueryOTAJob", code="Forbidden.RAM", status=403, calls=1)
        )
        for typed in (f"cancel {STATIC} because sesame-1", "cancle sesame-2", f"cancel {STATIC} because sesame-3"):
            await person(ON_CALL).types(typed, copies=2)
        await person(ON_CALL).clicks(copies=2)
        bodies = await at.bot.database.read(
            lambda connection: connection.execute(text("SELECT body FROM inbox")).scalars().all()
        )
        nonces = await at.bot.database.read(
            lambda connection: connection.execute(text("SELECT nonce FROM calls")).scalars().all()
        )
    addresses = [json.loads(body)["reply_to"]["address"] for body in bodies]
    assert len(addresses) >= 2
    assert nonces
    assert all(address.startswith("http") for address in addresses)
    said = json.dumps(lines, default=repr)
    secret = [server.SIGNING_SECRET, server.BOT_TOKEN, server.APP_TOKEN, server.KEY_SECRET, "sesame", *nonces]
    for each in (*secret, *addresses, *(address.rpartition("/")[2] for address in addresses)):
        assert each not in said
    assert len(deliveries(lines)) == 8


# The writer of lines by itself.


class Told:
    """What was noted."""

    def __init__(self) -> None:
        self.of: list[Happening] = []

    def note(self, happening: Happening) -> None:
        self.of.append(happening)


class Broken:
    def note(self, happening: Happening) -> None:
        raise RuntimeError("a defect of whoever listens")


async def test_only_what_was_written_is_told(clock: Clock, any_database_url: str) -> None:
    database, told = open_database(any_database_url), Told()
    store = ObservedStore(database, clock=clock, owner="me", telemetry=told)
    lease = await store.receive(delivery())
    assert lease is not None
    entry = Entry(EntryName.SHOWN, AT, ON_CALL, None, {})
    for _ in range(2):  # the second time it is answered already
        await store.record(entries=(entry,), handled="d-command:1", lease=lease)
    made = Transition(None, proposal(), (entry,))
    for _ in range(2):  # the second time it is there already
        await store.save(made)
    await store.receive(delivery())
    assert told.of == [
        Received(delivery(), is_new=True),
        Written((entry,), None, "d-command:1"),
        Written((entry,), made, None),
        Received(delivery(), is_new=False),
    ]
    await database.close()


async def test_a_step_of_several_proposals_is_told_of_each(clock: Clock, sqlite_url: str) -> None:
    database, told = open_database(sqlite_url), Told()
    store = ObservedStore(database, clock=clock, owner="me", telemetry=told)
    for name in ("p1", "p2"):
        await store.save(Transition(None, proposal(proposal_id=name), ()))
    over = Outcome(OutcomeCode.SUPERSEDED, Notice("A halt covers it."))
    ended = [
        Transition(
            proposal(proposal_id=name), proposal(proposal_id=name, version=1, state=State.FINISHED, outcome=over), ()
        )
        for name in ("p1", "p2")
    ]
    both = replace(ended[0], also=(ended[1],))
    assert await store.save(both) is not None
    assert told.of[2:] == [Written((), both), Written((), ended[1])]
    await database.close()


def test_a_listener_that_breaks_hurts_nobody_and_is_logged(lines: list[Line]) -> None:
    told, happening = Told(), Received(delivery(), is_new=True)
    Everybody([Broken(), told], log=structlog.get_logger()).note(happening)
    assert told.of == [happening]
    [line] = of(lines, "not noted")
    assert (line["what"], type(line["exc_info"])) == ("Received", RuntimeError)


def test_what_is_never_answered_here_is_forgotten(lines: list[Line], clock: Clock) -> None:
    writer = CanonicalLines(structlog.get_logger(), clock=clock)
    for number in range(REMEMBERED + 1):
        known = delivery(f"{number}")
        writer.note(Received(known, is_new=True))
        writer.note(Acknowledged("command", AckResult.WRITTEN, 0.001, known))
    refused = Entry(EntryName.REFUSED, AT, ON_CALL, None, {"why": "denied", "operation": "job.cancel"})
    for number in (0, 1):
        writer.note(Written((refused,), None, f"d-{number}"))
    forgotten, known_one = deliveries(lines)
    assert (forgotten["kind"], forgotten["ack_ms"], forgotten["actor"]) == (None, None, ON_CALL)
    assert (known_one["kind"], known_one["ack_ms"]) == ("command", 1.0)


def test_what_was_late_is_told_with_its_id_for_it_may_have_been_written(lines: list[Line], clock: Clock) -> None:
    writer = CanonicalLines(structlog.get_logger(), clock=clock)
    late = Acknowledged("command", AckResult.LATE, 2.0, delivery(), reference="ab12", why="not written within 2 s")
    writer.note(late)
    [line] = deliveries(lines)
    assert (line["delivery"], line["reference"], line["log_level"]) == ("d-command:1", "ab12", "error")


def test_an_unexpected_error_is_in_the_line_of_its_delivery(lines: list[Line], clock: Clock) -> None:
    writer, error = CanonicalLines(structlog.get_logger(), clock=clock), RuntimeError("x")
    writer.note(Acknowledged("click", AckResult.FAILED, 0.001, None, REPLY_TO, "ab12", None, error))
    [line] = deliveries(lines)
    assert (line["exc_info"], line["actor"], line["kind"]) == (error, ON_CALL, "click")
    assert REPLY_TO.address not in json.dumps(line, default=repr)


def test_a_call_that_got_no_slot_took_no_time(lines: list[Line], clock: Clock) -> None:
    writer = CanonicalLines(structlog.get_logger(), clock=clock)
    writer.note(CallMade("prod", TASKS, "cancel_tasks", "not_made", "not_made", 9.0, None))
    [line] = of(lines, "call:ended")
    assert (line["ms"], line["waited_ms"], line["code"], line["proposal"]) == (None, 9000.0, "not_made", None)


def test_who_takes_a_delivery_over_knows_what_it_is(lines: list[Line], clock: Clock) -> None:
    writer = CanonicalLines(structlog.get_logger(), clock=clock)
    writer.note(Claimed(Lease(of_delivery("d-command:1"), "me", 2), delivery()))
    writer.note(Written((Entry(EntryName.SHOWN, AT, ON_CALL, None, {"effect": "allow"}),), None, "d-command:1"))
    [line] = deliveries(lines)
    assert (line["kind"], line["operation"], line["decision"]) == ("command", "job.cancel", "allow")


@pytest.mark.parametrize(
    ("name", "facts", "effect"),
    [
        (EntryName.OFFERED, {}, "allow"),
        (EntryName.REOFFERED, {}, "allow"),
        (EntryName.CONFIRMED, {}, "allow"),
        (EntryName.SHOWN, {"effect": "deny"}, "deny"),
        (EntryName.SHOWN, {}, None),
        (EntryName.REFUSED, {"why": "denied"}, "deny"),
        (EntryName.REFUSED, {"why": "no policy"}, None),
        (EntryName.CLICK_REFUSED, {"why": "denied"}, "deny"),
        (EntryName.ENDED, {"outcome": "denied"}, "deny"),
        (EntryName.ENDED, {"outcome": "stopped"}, None),
        (EntryName.ASKED, {}, None),
    ],
)
def test_what_the_policy_said_is_read_off_the_entry(name: EntryName, facts: dict[str, Any], effect: str | None) -> None:
    assert effect_of(Entry(name, AT, ON_CALL, None, facts)) == effect


def test_spans_end_where_a_proposal_ended_and_are_never_below_zero() -> None:
    over = Outcome(OutcomeCode.EXPIRED, Notice("Nobody said yes."))
    made = replace(offer(), made_at=AT + timedelta(seconds=2))
    expired = proposal(state=State.FINISHED, offer=made, changed_at=AT + timedelta(seconds=902), outcome=over)
    assert spans_of(expired) == {"offer": 2.0, "total": 902.0}
    set_back = replace(expired, approved_at=AT)
    assert spans_of(set_back)["yes"] == 0.0
    assert spans_of(proposal(changed_at=None)) == {}
