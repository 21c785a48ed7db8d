"""What may go wrong between a caller and the simulator, and when calls are seen to arrive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from bot.sandbox.habits import Habits
from bot.sandbox.iot_broken import HUGE_BYTES
from bot.sandbox.iot_calls import Calls
from bot.sandbox.iot_faults import Fault, FaultKind, Faults
from tests.test_sandbox_iot import STATIC, STOP, Sandbox, code

XML = {"accept": "text/xml"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    await sandbox.client.aclose()


async def fault(sandbox: Sandbox, **fields: Any) -> None:
    answer = await sandbox.client.post("/_sandbox/faults", json=fields)
    assert answer.status_code == 200, answer.text


async def cancel(sandbox: Sandbox) -> httpx.Response:
    return await sandbox.ask("CancelOTATaskByJob", STOP)


@pytest.mark.parametrize(
    ("fields", "status", "text", "effects"),
    [
        ({"kind": "down"}, 503, "ServiceUnavailable", 0),
        ({"kind": "html_page"}, 502, "<html>", 0),
        ({"kind": "lost_then_timeout"}, 504, "", 0),
        ({"kind": "throttle"}, 400, "Throttling.User", 0),
        ({"kind": "throttle", "code": "Throttling.Api", "status": 429}, 429, "Throttling.Api", 0),
        ({"kind": "refuse", "code": "Forbidden.RAM", "status": 403}, 403, "Forbidden.RAM", 0),
        ({"kind": "refuse"}, 500, "InternalError", 0),
        ({"kind": "accept_then_timeout"}, 504, "", 1),
        ({"kind": "truncated"}, 200, '{"RequestId":', 1),
        ({"kind": "down", "code": "BadGateway", "status": 502}, 502, "BadGateway", 0),
        ({"kind": "html_page", "status": 200}, 200, "<html>", 0),
        ({"kind": "throttle", "code": "Throttling", "status": 429}, 429, "Throttling", 0),
        ({"kind": "throttle", "code": "iot.common.TooManyRequest"}, 200, "iot.common.TooManyRequest", 0),
        ({"kind": "refuse", "code": "iot.system.SystemException"}, 200, "iot.system.SystemException", 0),
        ({"kind": "refuse", "code": "iot.system.SystemError", "status": 400}, 400, "ErrorMessage", 0),
        ({"kind": "accept_then_error"}, 500, "InternalError", 1),
        ({"kind": "accept_then_error", "code": "ServiceUnavailable", "status": 503}, 503, "ServiceUnavailable", 1),
        ({"kind": "accept_then_error", "code": "iot.system.SystemException"}, 200, '"Success":false', 1),
        ({"kind": "accept_then_html"}, 502, "<html>", 1),
        ({"kind": "accept_then_html", "status": 200}, 200, "<html>", 1),
        ({"kind": "malformed"}, 200, '"RequestId"=', 1),
        ({"kind": "wrong_type"}, 200, '"Success":true', 1),
        ({"kind": "empty"}, 200, "", 1),
        ({"kind": "listed"}, 200, '[{"RequestId"', 1),
        ({"kind": "no_success"}, 200, '{"RequestId":', 1),
    ],
)
async def test_each_fault_does_what_it_says(
    sandbox: Sandbox, fields: dict[str, Any], status: int, text: str, effects: int
) -> None:
    await fault(sandbox, **fields, calls=1, action="CancelOTATaskByJob")
    assert (await sandbox.ask()).json()["Success"] is True
    answer = await cancel(sandbox)
    assert answer.status_code == status
    assert text in answer.text
    assert len(sandbox.fleet.history) == effects
    assert (await cancel(sandbox)).json()["Success"] is True


async def test_a_truncated_answer_cannot_be_read(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="truncated")
    with pytest.raises(json.JSONDecodeError):
        (await cancel(sandbox)).json()


async def test_latency_is_waited_for(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="latency", seconds=2.5)
    assert (await cancel(sandbox)).json()["Success"] is True
    assert sandbox.slept == [2.5]


async def test_a_throttled_answer_may_say_how_long(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="throttle", seconds=1.5, calls=2)
    assert (await cancel(sandbox)).headers["x-acs-retry-after"] == "1500"
    assert (await cancel(sandbox)).status_code == 400
    assert (await cancel(sandbox)).status_code == 200


async def test_a_closed_connection_comes_after_half_of_the_answer(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="accept_then_close")
    with pytest.raises(AssertionError):
        await cancel(sandbox)
    assert len(sandbox.fleet.history) == 1


async def test_a_lost_call_leaves_its_nonce_unused_and_an_accepted_one_does_not(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="lost_then_timeout", calls=1)
    await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n1")
    assert (await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n1")).status_code == 200
    await fault(sandbox, kind="accept_then_timeout", calls=1)
    await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n2")
    assert code(await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n2")) == (400, "SignatureNonceUsed")


async def test_faults_stand_until_they_are_cleared(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="down")
    assert [(await cancel(sandbox)).status_code for _ in range(3)] == [503, 503, 503]
    standing = (await sandbox.client.get("/_sandbox/faults")).json()["faults"]
    assert [row["kind"] for row in standing] == ["down"]
    assert (await sandbox.client.delete("/_sandbox/faults")).json() == {"faults": []}
    assert (await cancel(sandbox)).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff", b'"down"', b"{}", b"[" * 100_000),
        *(b'{"kind":"fire"}', b'{"kind":["down"]}', b'{"kind":"down","colour":1}', b'{"kind":"down","calls":0}'),
        *(b'{"kind":"down","calls":true}', b'{"kind":"latency","seconds":"1"}', b'{"kind":"latency","seconds":NaN}'),
        *(b'{"kind":"refuse","status":200}', b'{"kind":"refuse","status":"400"}', b'{"kind":"down","action":7}'),
        b'{"kind":"refuse","code":null}',
        b'{"kind":"latency","jitter":-1}',
        b'{"kind":"latency","jitter":601}',
        b'{"kind":"html_page","status":201}',
    ],
)
async def test_a_malformed_fault_is_refused_with_a_sentence(sandbox: Sandbox, content: bytes) -> None:
    answer = await sandbox.client.post("/_sandbox/faults", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert (await sandbox.client.get("/_sandbox/faults")).json() == {"faults": []}


async def test_every_kind_of_fault_makes_a_difference() -> None:
    answers = {}
    for kind in FaultKind:
        sandbox = Sandbox(new_request_id=lambda: "R")
        await fault(sandbox, kind=kind, seconds=1)
        if kind is FaultKind.ACCEPT_THEN_CLOSE:
            continue
        answer = await sandbox.ask("ListOTATaskByJob")
        answers[kind] = (answer.status_code, answer.text[:5000], len(answer.text), answer.headers, tuple(sandbox.slept))
    plain = await Sandbox(new_request_id=lambda: "R").ask("ListOTATaskByJob")
    assert (plain.status_code, plain.text[:5000], len(plain.text), plain.headers, ()) not in answers.values()
    assert len(answers) == len(FaultKind) - 1


@pytest.mark.parametrize(
    ("kind", "headers"),
    [(kind, headers) for kind in ("truncated", "malformed", "empty", "accept_then_html") for headers in ({}, XML)],
)
async def test_what_cannot_be_read_cannot_be_read_in_either_format(
    sandbox: Sandbox, kind: str, headers: dict[str, str]
) -> None:
    await fault(sandbox, kind=kind, status=200 if kind == "accept_then_html" else 0)
    answer = await sandbox.ask(headers=headers)
    assert answer.status_code == 200
    if headers and kind != "accept_then_html":
        with pytest.raises((ElementTree.ParseError, DefusedXmlException)):
            ElementTree.fromstring(answer.text)
    else:
        with pytest.raises(json.JSONDecodeError):
            answer.json()


async def test_a_wrong_type_is_that_of_plain_text(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="wrong_type")
    answer = await sandbox.ask()
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.json()["Data"]["JobId"] == STATIC


async def test_an_answer_may_be_a_list(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="listed")
    (body,) = (await sandbox.ask()).json()
    assert body["Success"] is True


async def test_a_huge_answer_is_right_for_whoever_reads_it_all(sandbox: Sandbox) -> None:
    await fault(sandbox, kind="huge")
    answer = await sandbox.ask()
    assert len(answer.content) > HUGE_BYTES
    assert answer.json()["Success"] is True


@pytest.mark.parametrize(("kind", "field"), [("no_total", "Total"), ("no_success", "Success")])
@pytest.mark.parametrize("headers", [{}, XML])
async def test_a_field_may_be_missing(sandbox: Sandbox, kind: str, field: str, headers: dict[str, str]) -> None:
    await fault(sandbox, kind=kind, calls=1)
    without, whole = [(await sandbox.ask("ListOTATaskByJob", headers=headers)).text for _ in range(2)]
    assert field not in without
    assert field in whole


async def test_latency_jitters_within_its_bounds_and_the_same_for_each_seed() -> None:
    waits = []
    for seed in (1, 1, 2):
        sandbox = Sandbox(seed=seed)
        await fault(sandbox, kind="latency", seconds=0.05, jitter=0.02)
        for _ in range(20):
            await sandbox.ask()
            sandbox.at += 1
        waits.append(sandbox.slept)
    assert waits[0] == waits[1] != waits[2]
    assert len(set(waits[0])) == 20
    assert all(0.05 <= seconds < 0.07 for seconds in waits[0])


def test_latency_without_jitter_is_fixed() -> None:
    faults = Faults()
    assert {faults.delay(Fault(FaultKind.LATENCY, seconds=2.5)) for _ in range(9)} == {2.5}


@pytest.mark.parametrize("burns", [True, False])
async def test_a_throttling_fault_burns_the_nonce_as_the_limit_does(burns: bool) -> None:
    sandbox = Sandbox(habits=Habits(throttled_burns_nonce=burns, refused_burns_nonce=not burns))
    await fault(sandbox, kind="throttle", calls=1)
    await sandbox.ask(nonce="n")
    assert (await sandbox.ask(nonce="n")).json().get("Code") == ("SignatureNonceUsed" if burns else None)


# Arrivals


def test_the_most_in_any_sliding_second_are_counted() -> None:
    calls = Calls()
    for at in (0.0, 0.2, 0.9, 1.0, 1.1, 1.19, 5.0):
        calls.note("QueryOTAJob", at)
    assert calls.most_in_a_second("QueryOTAJob") == 5
    assert calls.most_in_a_second("QueryOTAJob", seconds=0.1) == 2
    assert calls.most_in_a_second("ListOTATaskByJob") == 0


def test_a_second_does_not_contain_the_moment_in_which_it_ends() -> None:
    calls = Calls()
    for at in (1.0, 2.0, 3.0):
        calls.note("QueryOTAJob", at)
    assert calls.most_in_a_second("QueryOTAJob") == 1


def test_only_the_latest_arrivals_are_kept() -> None:
    calls = Calls(kept=3)
    for at in range(10):
        calls.note("QueryOTAJob", float(at))
    assert calls.arrivals("QueryOTAJob") == (7.0, 8.0, 9.0)


async def test_every_call_is_seen_also_one_that_is_refused() -> None:
    clock = iter(range(100))
    sandbox = Sandbox(monotonic=lambda: float(next(clock)))
    await fault(sandbox, kind="down", calls=1)
    await sandbox.ask()
    await sandbox.ask(secret="wrong")
    await sandbox.ask()
    await sandbox.ask("ReupgradeOTATask", method="GET")
    for _ in range(6):
        await sandbox.ask("CancelOTATaskByJob", STOP, scheme="v1")
    assert sandbox.app.state.calls.arrivals("QueryOTAJob") == (0.0, 1.0, 2.0)
    seen = (await sandbox.client.get("/_sandbox/calls")).json()["calls"]
    assert {action: row["calls"] for action, row in seen.items()} == {"CancelOTATaskByJob": 6, "QueryOTAJob": 3}
    assert seen["CancelOTATaskByJob"]["arrivals"] == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert (await sandbox.client.delete("/_sandbox/calls")).json() == {"calls": {}}
