"""`otabrake job …` while Slack is down: from the question to the devices, and what Slack gets when it is back.

On SQLite and on PostgreSQL, against the IoT simulator; each conversation is a process as far as leases, memory and the
database are concerned. What a real process does with signals, pipes and terminals: test_terminal_process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.exchange import Ask, Choice, Click, Delivery, ReplyTo
from bot.model import Place
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.slack import FakeSlack
from bot.sandbox.workspace import Message
from bot.storage.leases import new_owner
from bot.storage.own import SqlOwnWork
from bot.storage.store import SqlStore
from bot.terminal.conversation import Conversation
from tests.conftest import Clock
from tests.seats import STAGING, STATIC, Site, Typing, open_site
from tests.test_app import has_buttons

INCIDENT = "C0INCIDENT"
TASKS = "CancelOTATaskByJob"
BECAUSE = "4.2.1 bricks gateways"


@pytest.fixture
async def site(clock: Clock, tmp_path: Path, sqlite_url: str) -> AsyncIterator[Site]:
    async with open_site(clock, tmp_path, sqlite_url) as opened:
        yield opened


@pytest.fixture
async def any_site(clock: Clock, tmp_path: Path, any_database_url: str) -> AsyncIterator[Site]:
    async with open_site(clock, tmp_path, any_database_url) as opened:
        yield opened


def thread(slack: FakeSlack) -> tuple[Message, ...]:
    [card] = [message for message in slack.workspace.messages(INCIDENT) if message.thread_ts is None]
    return slack.workspace.messages(INCIDENT, card.ts)


async def pending_offer(site: Site) -> str:
    """The id of the offer that waits, after somebody at a terminal asked and typed nothing."""
    seen = await site.ask("job.cancel", reason=BECAUSE, typed=Typing([]))
    assert seen.code == 1
    [proposal] = [each for each in await site.proposals() if each["state"] == "offered"]
    offer_id: str = proposal["offer"]["offer_id"]
    return offer_id


async def test_a_rollout_is_stopped_without_slack_and_slack_is_told_when_it_is_back(any_site: Site) -> None:
    site = any_site
    seen = await site.ask("job.cancel", reason=BECAUSE)
    assert seen.code == 0
    for said in (
        f"Cancel {STATIC} on prod-shanghai",
        "Will not start: ≈295 queued",
        "Probably stops: ≈11 notified",
        "Not asked to stop: ≈12 in progress",
        f"Because: {BECAUSE}",
        "Type the job id to confirm: ",
        "Its card goes to C0INCIDENT",
        "The cloud accepted cancelling the tasks",
        "Stopped 305, finished anyway 12",
        f"stopped: Cancel {STATIC} on prod-shanghai",
    ):
        assert said in seen.text
    assert site.effects() == [TASKS]
    assert await site.audit() == [
        ("proposal:asked", "alice@ops1"),
        ("proposal:offered", "alice@ops1"),
        ("proposal:confirmed", "alice@ops1"),
        ("call:intended", "otabrake"),
        ("call:accepted", "otabrake"),
        ("proposal:ended", "otabrake"),
    ]
    assert {"card", "buttons", "broadcast"} <= set(await site.owed())
    assert (await site.proposals())[0]["place"]["channel"] == INCIDENT
    async with site.slack_is_back() as (slack, _):
        card, *rest = thread(slack)
        assert f"stopped: Cancel {STATIC} on prod-shanghai" in card.text
        assert "alice@ops1" in str(card.blocks)
        broadcasts = [message.text for message in rest if message.is_broadcast]
        assert [said for said in broadcasts if "The cloud accepted" in said]
        assert "Stopped 305, finished anyway 12" in broadcasts[-1]
        assert not any(has_buttons(message) for message in (card, *rest))
    assert await site.owed() == []
    assert site.effects() == [TASKS]


async def test_who_is_not_allowed_is_told_why_and_nothing_is_made(any_site: Site) -> None:
    seen = await any_site.ask("job.cancel", user="bob@ops1")
    assert seen.code == 1
    assert "the policy does not allow job.cancel here for you" in seen.text
    assert "Those who could: " in seen.text
    assert (any_site.effects(), await any_site.proposals(), await any_site.owed()) == ([], [], [])
    assert await any_site.audit() == [("ask:refused", "bob@ops1")]


async def test_a_rule_that_asks_for_a_channel_is_not_for_terminals(
    clock: Clock, tmp_path: Path, sqlite_url: str
) -> None:
    rules = """
groups: {terminal: {terminal: [alice@ops1]}}
rules: [{name: here, allow: [reads, job.cancel], who: [terminal], where: {channels: [C0INCIDENT]}}]
"""
    async with open_site(clock, tmp_path, sqlite_url, rules=rules) as site:
        seen = await site.ask("job.cancel", instance="prod-shanghai")
        assert seen.code == 1
        assert "not here" in seen.text
        assert await site.proposals() == []


@pytest.mark.parametrize(
    ("typed", "is_terminal", "why"),
    [
        ([f"{STATIC} "], True, "that is not the job id"),
        ([STATIC.lower()], True, "that is not the job id"),
        (["y"], True, "that is not the job id"),
        ([""], True, "nothing was typed"),
        ([], True, "nothing was typed"),
        ([], False, "no job id was piped in"),
        (["yes"], False, "that is not the job id"),
    ],
)
async def test_anything_but_the_id_leaves_the_offer_waiting(
    site: Site, typed: list[str], is_terminal: bool, why: str
) -> None:
    seen = await site.ask("job.cancel", typed=Typing(list(typed), is_terminal=is_terminal))
    assert seen.code == 1
    [proposal] = await site.proposals()
    offer_id = proposal["offer"]["offer_id"]
    assert f"Not confirmed: {why}. Nothing was sent; it waits for a yes until 03:27:00 UTC." in seen.text
    assert f"otabrake job approve {offer_id[:8]}" in seen.text
    assert f"otabrake job dismiss {offer_id[:8]}" in seen.text
    assert (proposal["state"], site.effects()) == ("offered", [])
    assert ("Type the job id to confirm: " in seen.lines) is is_terminal


async def test_an_id_that_is_piped_in_confirms(site: Site) -> None:
    seen = await site.ask("job.cancel", typed=Typing([STATIC], is_terminal=False))
    assert (seen.code, site.effects()) == (0, [TASKS])


@pytest.mark.parametrize(("user", "code", "verdict"), [("alice@ops1", 0, "allows"), ("bob@ops1", 1, "denies")])
async def test_a_dry_run_shows_what_would_happen_and_makes_nothing(
    site: Site, user: str, code: int, verdict: str
) -> None:
    seen = await site.ask("job.cancel", is_dry_run=True, params=frozenset({"queued"}), user=user)
    assert seen.code == code
    assert f"the policy {verdict} it; nothing was sent" in seen.text
    assert "Will not start: ≈295 queued" in seen.text
    assert (await site.proposals(), await site.owed(), site.effects()) == ([], [], [])
    assert await site.audit() == [("read:shown", user)]


async def test_break_glass_waives_nothing_yet_and_says_so_here_and_in_the_audit(site: Site) -> None:
    seen = await site.ask("job.cancel", reason=BECAUSE, is_glass=True)
    assert seen.code == 0
    assert "nobody's approval is required here, so there is nothing to waive" in seen.text
    [(asked,)] = await site.rows("SELECT body FROM entries WHERE name = 'proposal:asked'")
    assert b'"break_glass":true' in bytes(asked)


async def test_what_somebody_left_waiting_another_person_approves(any_site: Site) -> None:
    site = any_site
    offer_id = await pending_offer(site)
    seen = await site.answer(offer_id[:6], user="carol@ops2")
    assert seen.code == 0
    assert "Asked by alice@ops1" in seen.text
    assert BECAUSE in seen.text
    assert "stopped: Cancel" in seen.text
    assert ("proposal:confirmed", "carol@ops2") in await site.audit()
    assert site.effects() == [TASKS]
    async with site.slack_is_back() as (slack, _):
        assert "carol@ops2" in str(thread(slack)[0].blocks)


async def test_whoever_the_policy_does_not_allow_cannot_approve(site: Site) -> None:
    seen = await site.answer(await pending_offer(site), user="bob@ops1")
    assert seen.code == 1
    assert "Your click does not count: the policy does not allow it for you here." in seen.text
    assert "Not confirmed. Nothing was sent; it waits" in seen.text
    assert ("click:refused", "bob@ops1") in await site.audit()
    assert (site.effects(), (await site.proposals())[0]["state"]) == ([], "offered")


async def test_an_approval_needs_the_typed_id_too(site: Site) -> None:
    offer_id = await pending_offer(site)
    seen = await site.answer(offer_id, typed=Typing(["yes"]), user="carol@ops2")
    assert (seen.code, site.effects()) == (1, [])
    assert "that is not the job id" in seen.text


async def test_an_offer_is_found_by_an_unambiguous_beginning_alone(site: Site) -> None:
    offer_id = await pending_offer(site)
    other = "0" if offer_id[0] != "0" else "1"
    unknown = await site.answer(other + offer_id[1:])
    assert (unknown.code, "There is no offer whose id begins with" in unknown.text) == (1, True)
    await site.ask("job.halt", typed=Typing([]))
    rows = await site.rows("SELECT offer_id FROM offers ORDER BY offer_id")
    assert len(rows) == 2
    ambiguous = await site.answer("")
    assert (ambiguous.code, "Several offers begin with" in ambiguous.text) == (1, True)
    assert site.effects() == []


async def test_what_waits_is_taken_back_by_who_asked(site: Site) -> None:
    offer_id = await pending_offer(site)
    denied = await site.answer(offer_id, Choice.DISMISS, user="bob@ops1")
    assert (denied.code, (await site.proposals())[0]["state"]) == (1, "offered")
    seen = await site.answer(offer_id[:8], Choice.DISMISS)
    assert seen.code == 0
    assert "dismissed: Cancel" in seen.text
    assert "Nothing was sent to the cloud" in seen.text
    late = await site.answer(offer_id)
    assert (late.code, "It is over" in late.text, site.effects()) == (1, True, [])


async def test_an_offer_that_expired_at_the_prompt_does_not_count(site: Site) -> None:
    seen = await site.ask("job.cancel", typed=Typing([STATIC], meanwhile=lambda: site.clock.pass_by(901)))
    assert (seen.code, site.effects()) == (1, [])
    assert "expired" in seen.text
    assert (await site.proposals())[0]["outcome"]["code"] == "expired"


async def test_the_same_question_again_says_which_offer_waits(site: Site) -> None:
    offer_id = await pending_offer(site)
    seen = await site.ask("job.cancel", user="carol@ops2")
    assert seen.code == 1
    assert "The same is already waiting for a yes" in seen.text
    assert f"otabrake job approve {offer_id[:8]}" in seen.text
    assert len(await site.proposals()) == 1


async def test_a_rollout_that_changed_at_the_last_look_is_shown_and_asked_about_again(site: Site) -> None:
    rollout = site.fleet.job(STATIC)
    other = "Gw419xPm3RjS7hDz5Ye001"

    def change() -> None:
        rollout.facts = replace(rollout.facts, firmware_id=other)

    seen = await site.ask("job.cancel", typed=Typing([STATIC], meanwhile=change))
    assert seen.code == 1
    assert "now carries another firmware" in seen.text
    assert seen.text.count("Type the job id to confirm: ") == 2
    assert "Not confirmed: nothing was typed." in seen.text
    assert (site.effects(), (await site.proposals())[0]["state"]) == ([], "offered")


async def test_where_the_instance_has_no_channel_the_terminal_is_the_only_place(
    clock: Clock, tmp_path: Path, sqlite_url: str
) -> None:
    async with open_site(clock, tmp_path, sqlite_url) as site:
        seen = await site.ask("job.cancel", STAGING, typed=Typing([STAGING]))
        assert (seen.code, site.effects()) == (0, [TASKS])
        assert "staging-singapore has no channel in the policy" in seen.text
        async with site.slack_is_back() as (slack, _):
            assert slack.workspace.messages(INCIDENT) == ()
        assert await site.owed() == []


async def test_a_card_that_slack_refuses_does_not_end_what_waits_at_a_terminal(
    clock: Clock, tmp_path: Path, sqlite_url: str
) -> None:
    async with open_site(clock, tmp_path, sqlite_url) as site:
        await site.ask("job.cancel", STAGING, typed=Typing([]))
        async with site.slack_is_back():
            [proposal] = await site.proposals()
            assert proposal["state"] == "offered"
        seen = await site.answer(proposal["offer"]["offer_id"], typed=Typing([STAGING]))
        assert (seen.code, site.effects()) == (0, [TASKS])


async def test_beside_a_running_bot_the_card_stands_in_slack_at_once_and_somebody_there_may_say_yes(
    any_site: Site,
) -> None:
    site = any_site
    async with site.slack_is_back() as (slack, bot):
        shown: list[Message] = []

        async def somebody_clicks() -> None:
            await bot.notifier.drain()
            shown.extend(thread(slack))
            offer_id = (await site.proposals())[0]["offer"]["offer_id"]
            to = ReplyTo("U0ONCALLA1", Place(INCIDENT))
            click = Delivery("click1", "click1", to, site.clock(), Click(Choice.CONFIRM, offer_id))
            await bot.road.receive(click)
            await bot.road.drain()

        seen = await site.ask("job.cancel", typed=Typing([STATIC], meanwhile=somebody_clicks))
        assert "waiting for a yes: Cancel" in shown[0].text
        assert has_buttons(shown[1])
        assert seen.code == 0
        assert "It is over: stopped" in seen.text or "It is already confirmed and on its way" in seen.text
        assert site.effects() == [TASKS]
        assert ("proposal:confirmed", "U0ONCALLA1") in await site.audit()
        await bot.notifier.drain()
        assert not any(has_buttons(message) for message in thread(slack))


async def test_what_was_asked_for_in_slack_is_approved_at_a_terminal_and_its_card_stays(site: Site) -> None:
    firmware = "Gw421aFq8LkT2nVb6Wc001"
    async with site.slack_is_back() as (slack, bot):
        ask = Ask("firmware.halt", instance="prod-shanghai", firmware=firmware)
        to = ReplyTo("U0ONCALLA1", Place(INCIDENT))
        await bot.road.receive(Delivery("ask1", "slack:1", to, site.clock(), ask))
        await bot.road.drain()
        await bot.notifier.drain()
        offer_id = (await site.proposals())[0]["offer"]["offer_id"]
        wrong = await site.answer(offer_id, typed=Typing([STATIC]))
        assert (wrong.code, "that is not the firmware id" in wrong.text) == (1, True)
        seen = await site.answer(offer_id, typed=Typing([firmware]))
        assert "Asked by U0ONCALLA1" in seen.text
        assert "Type the firmware id to confirm: " in seen.text
        assert "Halt 2 rollouts" in seen.text
        assert seen.code == 0
        await bot.notifier.drain()
        assert "confirmed by alice@ops1" in str(thread(slack)[0].blocks)
    assert sorted(site.effects()) == ["CancelOTAStrategyByJob", TASKS, TASKS]


async def test_a_bot_takes_over_what_a_terminal_left_and_knows_who_asked(any_site: Site) -> None:
    site = any_site
    gone = SqlStore(site.database, clock=site.clock, owner="a terminal that is gone")
    to = ReplyTo("alice@ops1", Place(None))
    ask = Delivery("ask1", "terminal:ask1", to, site.clock(), Ask("job.cancel", STATIC, "prod-shanghai"))
    assert await gone.receive(ask) is not None
    async with site.slack_is_back() as (slack, bot):
        await site.let_leases_lapse()
        await bot.road.sweep_once()
        await bot.road.drain()
        [proposal] = await site.proposals()
        assert (proposal["state"], proposal["requester"]) == ("offered", "alice@ops1")
        offer_id = proposal["offer"]["offer_id"]
        click = Delivery("click1", "terminal:click1", to, site.clock(), Click(Choice.CONFIRM, offer_id))
        assert await gone.receive(click) is not None
        await site.let_leases_lapse()
        await bot.road.sweep_once()
        await bot.road.drain()
        await bot.notifier.drain()
        assert site.effects() == [TASKS]
        assert "stopped: Cancel" in thread(slack)[0].text


async def test_an_answer_that_nobody_at_the_terminal_waits_for_any_more_is_no_failure_of_slack(site: Site) -> None:
    gone = SqlStore(site.database, clock=site.clock, owner="a terminal that is gone")
    for number, operation in enumerate(("job.cancel", "job.tasks")):
        ask = Ask(operation, STATIC, "prod-shanghai")
        key = f"ask{number}"
        assert await gone.receive(Delivery(key, key, ReplyTo("bob@ops1", Place(None)), site.clock(), ask)) is not None
    await site.let_leases_lapse()
    async with site.slack_is_back() as (_, bot):
        await bot.road.sweep_once()
        await bot.road.drain()
        await bot.notifier.drain()
        assert await site.audit() == [("ask:refused", "bob@ops1"), ("read:shown", "bob@ops1")]
    assert await site.rows("SELECT body FROM outbox WHERE settled_at IS NULL OR failure IS NOT NULL") == []


async def test_what_others_began_is_left_to_the_bot(site: Site) -> None:
    store = SqlStore(site.database, clock=site.clock, owner="a bot that is gone")
    theirs = ReplyTo("U0ONCALLA1", Place(INCIDENT))
    ask = Delivery("ask1", "slack:1", theirs, site.clock(), Ask("job.halt", STATIC, "prod-shanghai"))
    assert await store.receive(ask) is not None
    await site.let_leases_lapse()
    seen = await site.ask("job.cancel")
    assert seen.code == 0
    assert await site.rows("SELECT handled_at FROM inbox WHERE delivery_id = 'ask1'") == [(None,)]
    own = SqlOwnWork(site.database, clock=site.clock, owner=new_owner())
    assert (await own.claim_deliveries(), await own.claim_work(site.clock()), await own.claim_lanes()) == ((), (), ())


async def test_work_of_ones_own_that_failed_is_found_again(any_site: Site) -> None:
    """A second owner stands for the process of before: its lease lapsed, and nobody else looks for the work."""
    site = any_site
    own = SqlOwnWork(site.database, clock=site.clock, owner=new_owner())
    to = ReplyTo("alice@ops1", Place(None))
    ask = Delivery("ask1", "terminal:1", to, site.clock(), Ask("job.cancel", STATIC, "prod-shanghai"))
    assert await own.receive(ask) is not None
    assert await own.claim_deliveries() == ()
    assert not await own.fetch_is_answered("ask1")
    await site.let_leases_lapse()
    [(lease, found)] = await own.claim_deliveries()
    assert (found, lease.attempts) == (ask, 1)
    assert own.answer_to("ask1") is None


async def test_reads_are_shown_and_audited(any_site: Site) -> None:
    site = any_site
    shown = await site.ask("job.show", user="bob@ops1")
    assert shown.code == 0
    assert f"Rollout {STATIC} is in progress." in shown.text
    assert "Queued: 295" in shown.text
    listed = await site.ask("job.list", "", user="bob@ops1")
    assert (listed.code, "I know of no rollout" in listed.text) == (0, True)
    tasks = await site.ask("job.tasks", params=frozenset({"notified"}), user="bob@ops1")
    assert tasks.code == 0
    assert len([line for line in tasks.lines if " · notified · " in line]) == 11
    assert "direct message" not in tasks.text
    assert await site.audit() == [("read:shown", "bob@ops1")] * 3
    assert await site.owed() == []


async def test_reads_need_an_allow_too(site: Site) -> None:
    for operation in ("job.show", "job.tasks", "job.list"):
        seen = await site.ask(operation, user="mallory@ops1", instance="prod-shanghai")
        assert (seen.code, "the policy does not allow" in seen.text) == (1, True)
    assert await site.audit() == [("ask:refused", "mallory@ops1")] * 3


async def test_no_task_in_that_state_is_said(site: Site) -> None:
    seen = await site.ask("job.tasks", params=frozenset({"confirm"}))
    assert (seen.code, "No task of" in seen.text) == (0, True)


async def test_a_list_that_the_cloud_cuts_short_is_no_success(site: Site) -> None:
    async def with_a_cloud_that_breaks_after_the_answer(talk: Conversation) -> int:
        refuse = Fault(FaultKind.REFUSE, action="ListOTATaskByJob", code="iot.ota.JobNotFound", status=200)
        talk.terminal.bell.wake = lambda: site.iot.state.faults.add(refuse)  # type: ignore[method-assign]
        return await talk.ask(Ask("job.tasks", STATIC))

    seen = await site.talk(with_a_cloud_that_breaks_after_the_answer)
    assert seen.code == 1
    assert await site.audit() == [("read:shown", "alice@ops1")]


async def test_scripts_get_an_object_a_line(site: Site) -> None:
    seen = await site.ask("job.cancel", reason=BECAUSE, is_json=True, typed=Typing([STATIC], is_terminal=False))
    assert seen.code == 0
    [offer], [end] = seen.of_kind("offer"), seen.of_kind("end")
    assert (offer["operation"], offer["requester"], offer["reason"]) == ("job.cancel", "alice@ops1", BECAUSE)
    [rollout] = offer["preview"]["rollouts"]
    assert (rollout["job"], rollout["counts"]["QUEUED"], offer["preview"]["devices"]) == (STATIC, 295, 306)
    assert (end["outcome"], end["stopped"], end["still_moving"]) == ("stopped", 305, 0)
    assert seen.of_kind("broadcast")[0]["text"].startswith("The cloud accepted")
    tasks = await site.ask("job.tasks", params=frozenset({"failed"}), is_json=True)
    assert [each["state"] for each in tasks.objects] == ["FAILED"] * 16
    shown = await site.ask("job.show", is_json=True)
    assert shown.objects[0]["preview"]["rollouts"][0]["counts"]["CANCELED"] == 305


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[1;31mType the job id to confirm: \x9b1A\u202egnol\u2028\r\nStopped 400.\x00\x7f"


async def test_hostile_text_gives_the_terminal_no_commands(site: Site) -> None:
    rollout = site.fleet.job(STATIC)
    rollout.facts = replace(rollout.facts, description=HOSTILE)
    firmware = site.fleet.firmwares[rollout.facts.firmware_id]
    site.fleet.firmwares[rollout.facts.firmware_id] = replace(firmware, name=HOSTILE)
    for is_json in (False, True):
        shown = await site.ask("job.show", is_json=is_json)
        stopped = await site.ask("job.cancel", reason=HOSTILE, is_json=is_json, typed=Typing([]))
        for line in (*shown.lines, *stopped.lines):
            assert line.isprintable(), ascii(line)
        assert "owned" in shown.text
        await site.answer((await site.proposals())[-1]["offer"]["offer_id"], Choice.DISMISS)
    assert site.effects() == []


async def test_a_yes_whose_answer_was_lost_is_not_called_done(site: Site) -> None:
    site.iot.state.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, action=TASKS, calls=1))
    seen = await site.ask("job.cancel")
    assert "was lost" in seen.text
    outcome: dict[str, Any] = (await site.proposals())[0]["outcome"]
    assert outcome["code"] in ("stopped", "goal_reached_unconfirmed")
    assert (seen.code, set(site.effects())) == (0, {TASKS})
