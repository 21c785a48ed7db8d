"""The road by itself, on SQLite, with a cloud that answers as the test says: what is lost, late, refused or changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot.errors import (
    CloudLost,
    CloudRefused,
    CloudThrottled,
    CloudUnreachable,
    PeopleUnavailable,
    StoreUnavailable,
    Unidentified,
)
from bot.exchange import Choice, Click, PostKind
from bot.model import (
    Counts,
    JobKind,
    JobState,
    OutcomeCode,
    Place,
    StepKind,
    Target,
    TaskState,
)
from bot.operations import Operations, Repeat
from bot.ops import KNOWN
from bot.policy.load import load
from bot.proposals import Call, CallAnswer, State
from bot.workflow.road import ATTEMPTS, Road
from tests.conftest import Clock
from tests.values import delivery, intent, job, offer, preview, proposal
from tests.world import RULES, World, living_world, outcome


@pytest.fixture
async def world(clock: Clock, sqlite_url: str) -> AsyncIterator[World]:
    async with living_world(clock, sqlite_url) as made:
        yield made


async def test_a_yes_leads_to_one_call_and_a_last_line(world: World) -> None:
    offered = await world.ask()
    assert offered is not None
    assert offered.state is State.OFFERED
    assert world.cloud.sent == []
    after = await world.click()
    assert (outcome(after), len(world.cloud.sent)) == (OutcomeCode.STOPPED, 1)
    assert "Stopped 9, finished anyway 0, failed 0; of those asked to stop, none still moving." in await world.said(
        PostKind.BROADCAST
    )


# The last look.


async def test_growth_alone_does_not_take_a_yes_back(world: World) -> None:
    await world.ask()
    world.cloud.counts[TaskState.QUEUED] = 400
    assert outcome(await world.click()) is OutcomeCode.STOPPED


@pytest.mark.parametrize("change", [{"state": JobState.PLANNED}, {"kind": JobKind.DYNAMIC}, {"firmware_id": "another"}])
async def test_another_rollout_than_the_confirmed_one_is_offered_anew(world: World, change: dict[str, Any]) -> None:
    await world.ask()
    world.cloud.job = replace(world.cloud.job, **change)
    after = await world.click()
    assert (after.state, world.cloud.sent) == (State.OFFERED, [])
    assert "the rollout changed after the numbers that were confirmed" in await world.said(PostKind.LINE)
    assert outcome(await world.click()) is OutcomeCode.STOPPED


async def test_a_count_that_cannot_be_read_again_keeps_the_offers_value(world: World) -> None:
    await world.ask()
    world.cloud.count_errors = [CloudLost("timeout")]
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    assert after.called is not None
    assert after.called.counts.by_state[TaskState.QUEUED] == 9


async def test_a_rollout_that_cannot_be_read_again_is_not_called(world: World) -> None:
    await world.ask()
    world.cloud.read_errors = [CloudUnreachable("refused")] * 99
    after = await world.click()
    assert (outcome(after), world.cloud.sent) == (OutcomeCode.NOT_DONE, [])
    assert "Nothing was sent to the cloud" in await world.said(PostKind.BROADCAST)


async def test_a_refusal_at_the_last_look_ends_at_once(world: World) -> None:
    await world.ask()
    world.cloud.read_errors = [CloudRefused("Forbidden.RAM", "no")]
    assert outcome(await world.click()) is OutcomeCode.NOT_DONE
    assert world.clock.slept == []


async def test_a_short_trouble_at_the_last_look_is_waited_for(world: World) -> None:
    await world.ask()
    world.cloud.read_errors = [CloudLost("timeout"), CloudThrottled("Throttling", "slow")]
    assert outcome(await world.click()) is OutcomeCode.STOPPED


async def test_a_policy_that_denies_at_the_last_look_stops_the_call(world: World) -> None:
    await world.ask()
    world.cloud.counts[TaskState.QUEUED] = 6000
    after = await world.click()
    assert (outcome(after), world.cloud.sent) == (OutcomeCode.DENIED, [])
    assert "at the last look the policy no longer allows it" in await world.said(PostKind.BROADCAST)


async def test_a_reason_that_is_required_only_at_the_last_look_is_asked_for(world: World) -> None:
    await world.ask(reason=None)
    world.cloud.counts[TaskState.QUEUED] = 600
    after = await world.click()
    assert (outcome(after), world.cloud.sent) == (OutcomeCode.NOT_DONE, [])
    assert "/ota cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai because …" in await world.said(PostKind.BROADCAST)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Unidentified("deactivated."), OutcomeCode.DENIED), (PeopleUnavailable("down"), OutcomeCode.NOT_DONE)],
)
async def test_a_person_who_cannot_be_known_at_the_last_look_stops_the_call(
    world: World, trouble: Exception, code: OutcomeCode
) -> None:
    await world.ask()

    def fall_out() -> None:
        world.crowd.trouble = trouble

    world.cloud.on_read = fall_out
    after = await world.click()
    assert (outcome(after), world.cloud.sent) == (code, [])


async def test_a_policy_that_is_gone_stops_everything(world: World) -> None:
    world.policy[0] = None
    assert await world.ask() is None
    assert "there is no valid policy" in await world.said(PostKind.REPLY)


async def test_an_approval_that_was_left_too_long_sends_nothing(world: World) -> None:
    approved = proposal(state=State.APPROVED, offer=offer(), confirmed_by="U0ONCALLA1", approved_at=world.clock())
    await world.keep(approved)
    world.clock.pass_by(61)
    after = await world.go_on()
    assert (outcome(after), world.cloud.sent) == (OutcomeCode.NOT_DONE, [])
    assert "Nothing was sent to the cloud" in await world.said(PostKind.BROADCAST)


# The call.


async def test_a_call_that_cannot_leave_is_tried_for_a_minute_and_then_said_not_to_have_been_sent(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudUnreachable("refused")] * 99
    after = await world.click()
    assert outcome(after) is OutcomeCode.NOT_DONE
    assert sum(world.clock.slept) <= 60
    assert "Nothing was sent to the cloud" in await world.said(PostKind.BROADCAST)
    assert {call.answer for call in after.calls} == {CallAnswer.NOT_SENT}


async def test_a_throttled_call_is_repeated_with_a_new_nonce_for_two_minutes(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudThrottled("Throttling.User", "slow", retry_after_seconds=10)] * 99
    after = await world.click()
    assert outcome(after) is OutcomeCode.REFUSED_BY_CLOUD
    assert len({sent.nonce for sent in world.cloud.sent}) == len(world.cloud.sent) == 12


async def test_a_refused_call_ends_with_the_clouds_reason(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudRefused("iot.ota.JobHasCanceled", "cancelled", request_id="RID9")]
    after = await world.click()
    assert outcome(after) is OutcomeCode.REFUSED_BY_CLOUD
    assert after.request_ids == ("RID9",)


async def test_a_halt_whose_second_step_is_refused_says_which_step_worked(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    await world.ask("job.halt")

    def refuse_the_second() -> None:
        if len(world.cloud.sent) == 2:
            world.cloud.answers = [CloudRefused("iot.ota.JobHasCanceled", "cancelled")]

    world.cloud.on_send = refuse_the_second
    after = await world.click()
    assert [sent.step.kind for sent in world.cloud.sent] == [StepKind.CANCEL_STRATEGY, StepKind.CANCEL_TASKS]
    assert outcome(after) is OutcomeCode.REFUSED_BY_CLOUD
    assert "Accepted before that: cancelling the strategy." in await world.said(PostKind.BROADCAST)


async def test_a_halt_whose_second_step_cannot_leave_says_so(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    await world.ask("job.halt")
    world.cloud.on_send = lambda: world.cloud.answers.extend([CloudUnreachable("x")] * (len(world.cloud.sent) > 1))
    await world.click()
    assert "What was left was not sent." in await world.said(PostKind.BROADCAST)


async def test_a_key_that_is_gone_before_the_call_is_said(world: World) -> None:
    await world.ask()
    world.cloud.has_key = False
    after = await world.click()
    assert (outcome(after), world.cloud.sent) == (OutcomeCode.NOT_DONE, [])


# Lost answers.


async def test_a_lost_call_is_sent_again_byte_for_byte_and_accepted(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout")]
    after = await world.click()
    first, second = world.cloud.sent
    assert first == second
    assert outcome(after) is OutcomeCode.STOPPED


async def test_a_used_nonce_proves_that_the_first_copy_arrived(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout"), CloudRefused("SignatureNonceUsed", "used")]
    world.cloud.on_send = lambda: world.cloud.obey(world.cloud.sent[0].step)
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    assert "it refused a second copy of it" in await world.said(PostKind.BROADCAST)


async def test_nothing_is_concluded_before_the_deadline_and_a_second(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout"), CloudLost("timeout")]
    world.cloud.on_send = lambda: world.cloud.obey(world.cloud.sent[0].step)
    after = await world.click()
    assert world.clock.slept[0] >= 11
    assert outcome(after) is OutcomeCode.GOAL_REACHED_UNCONFIRMED
    assert "Whether that was this call is not known" in await world.said(PostKind.BROADCAST)


async def test_a_goal_not_reached_is_called_for_again_three_times_at_most(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout")] * 99
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME
    assert len({sent.nonce for sent in world.cloud.sent}) == 3
    assert "aliyun iot --JobId" in await world.said(PostKind.BROADCAST)


async def test_what_must_never_be_repeated_is_sent_once_even_if_its_answer_is_lost(world: World) -> None:
    once = Operations.of(replace(operation, repeat=Repeat.NEVER) for operation in KNOWN.by_name.values())
    world.means = replace(world.means, operations=once)
    await world.ask()
    world.cloud.answers = [CloudLost("timeout")]
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    assert len(world.cloud.sent) == 1


async def test_a_second_copy_that_is_refused_is_judged_by_what_is_read(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout"), CloudRefused("iot.ota.JobHasCanceled", "over", request_id="RID2")]
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME
    assert "may or may not have arrived" in await world.said(PostKind.BROADCAST)


async def test_after_a_lost_first_copy_nothing_later_is_said_to_be_all_that_happened(world: World) -> None:
    for later in (CloudThrottled("Throttling", "slow", retry_after_seconds=200), CloudUnreachable("refused")):
        await world.ask()
        world.cloud.is_obeyed = False
        world.cloud.answers = [CloudLost("timeout"), CloudLost("timeout"), *[later] * 99]
        assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    said = await world.said(PostKind.BROADCAST)
    assert "Nothing was sent" not in said
    assert "refused" not in said.replace("Because: refused", "")


async def test_a_halt_goes_on_with_its_second_step_after_a_crash_however_long_ago(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    halting = offer(preview=preview(job=world.cloud.job), expires_at=world.clock() + timedelta(minutes=15))
    left = proposal(
        operation="job.halt",
        state=State.CALLING,
        offer=halting,
        confirmed_by="U0ONCALLA1",
        approved_at=world.clock(),
        called=preview(counts=Counts(dict(world.cloud.counts), world.clock())),
        calls=(Call(0, 1, intent("n-left"), CallAnswer.ACCEPTED, "RID"),),
        steps_done=1,
    )
    await world.keep(left)
    world.clock.pass_by(300)
    assert outcome(await world.go_on()) is OutcomeCode.STOPPED


async def test_devices_that_were_told_and_now_flash_are_not_said_to_have_stopped(world: World) -> None:
    world.cloud.counts |= {TaskState.NOTIFIED: 5, TaskState.IN_PROGRESS: 12}
    await world.ask()

    def some_start_to_flash() -> None:
        world.cloud.counts |= {TaskState.NOTIFIED: 0, TaskState.IN_PROGRESS: 15, TaskState.CANCELED: 2}

    world.cloud.on_send = some_start_to_flash
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    assert "of those asked to stop, 3 still moving" in await world.said(PostKind.BROADCAST)


async def test_numbers_of_long_ago_are_not_said_to_be_those_of_now(world: World) -> None:
    await world.ask()
    world.cloud.is_obeyed = False
    reads = 0

    async def once(*args: Any, **options: Any) -> Counts:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise CloudLost("no answer")
        return Counts(dict(world.cloud.counts), world.clock())

    def from_now_on() -> None:
        world.cloud.fetch_counts = once  # type: ignore[method-assign]

    world.cloud.on_send = from_now_on
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME


async def test_a_yes_is_decided_where_it_was_given(world: World) -> None:
    only_there = RULES.replace("where: {instances: [prod-*]}", "where: {instances: [prod-*], channels: [C0INCIDENT]}")
    world.policy[0] = load({"p.yaml": only_there.encode()}, operations=KNOWN)
    waiting = await world.ask()
    assert waiting is not None
    assert waiting.offer is not None
    elsewhere = replace(delivery().reply_to, place=Place("C0ELSEWHERE"))
    click = Click(Choice.CONFIRM, waiting.offer.offer_id)
    await world.take(delivery("x", content=click, reply_to=elsewhere, received_at=world.clock()))
    assert world.cloud.sent == []
    assert "the policy does not allow it for you here" in await world.said(PostKind.REPLY)


async def test_work_that_breaks_after_the_call_is_not_said_to_have_sent_nothing(world: World) -> None:
    await world.ask()

    async def broken(*args: Any, **options: Any) -> Counts:
        raise RuntimeError("a bug")

    def from_now_on() -> None:
        world.cloud.fetch_counts = broken  # type: ignore[method-assign]

    world.cloud.on_send = from_now_on
    await world.click()
    for _ in range(ATTEMPTS + 1):
        after = await world.go_on()
    said = await world.said(PostKind.BROADCAST)
    assert after.state in (State.FOLLOWING, State.FINISHED)
    assert "Nothing was sent" not in said


async def test_a_read_back_that_does_not_come_ends_as_unknown(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout"), CloudThrottled("Throttling", "slow")]
    world.cloud.on_send = lambda: world.cloud.count_errors.extend([CloudLost("no answer")] * 99)
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME


async def test_a_number_that_is_missing_in_the_read_back_is_not_taken_for_zero(world: World) -> None:
    await world.ask()
    world.cloud.answers = [CloudLost("timeout"), CloudLost("timeout")]

    def lose_a_number() -> None:
        world.cloud.counts = dict.fromkeys(TaskState, 0) | {TaskState.NOTIFIED: None}

    world.cloud.on_send = lose_a_number
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME


async def test_a_lost_strategy_call_is_judged_by_the_jobs_state(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    await world.ask("job.halt")
    world.cloud.answers = [CloudLost("timeout"), CloudLost("timeout")]
    world.cloud.on_send = lambda: world.cloud.obey(world.cloud.sent[0].step)
    after = await world.click()
    assert world.cloud.sent[-1].step.kind is StepKind.CANCEL_TASKS
    assert outcome(after) is OutcomeCode.STOPPED
    assert "No answer came to cancelling the strategy, but its goal is reached" in await world.said(PostKind.LINE)


# After the call.


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED])
async def test_devices_that_did_not_stop_are_counted_as_what_they_did(world: World, state: TaskState) -> None:
    await world.ask()

    def go_their_way() -> None:
        world.cloud.counts |= {TaskState.QUEUED: 0, TaskState.CANCELED: 4, state: 5}
        world.cloud.is_obeyed = False

    world.cloud.on_send = go_their_way
    after = await world.click()
    assert outcome(after) is (OutcomeCode.PARTLY_STOPPED if state is TaskState.SUCCEEDED else OutcomeCode.STOPPED)


async def test_devices_that_still_move_at_the_end_are_said_to_move(world: World) -> None:
    await world.ask()
    world.cloud.is_obeyed = False
    after = await world.click()
    assert outcome(after) is OutcomeCode.NOT_STOPPED
    assert "of those asked to stop, 9 still moving" in await world.said(PostKind.BROADCAST)
    assert sum(world.clock.slept) >= 900


async def test_devices_that_cannot_be_seen_are_not_said_to_have_stopped(world: World) -> None:
    await world.ask()
    world.cloud.on_send = lambda: world.cloud.count_errors.extend([CloudLost("no answer")] * 999)
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME
    assert "it did not tell what the devices do" in await world.said(PostKind.BROADCAST)


async def test_one_reading_of_zero_is_not_enough(world: World) -> None:
    await world.ask()
    readings = 0

    async def flicker(*args: Any, **options: Any) -> Counts:
        nonlocal readings
        readings += 1
        left = 0 if readings in (1, 3, 4) else 1
        return Counts(dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: left, TaskState.CANCELED: 9}, world.clock())

    def from_now_on() -> None:
        world.cloud.fetch_counts = flicker  # type: ignore[method-assign]

    world.cloud.on_send = from_now_on
    assert outcome(await world.click()) is OutcomeCode.STOPPED
    assert readings == 4


# Going on from the row.


async def test_an_intent_without_an_answer_is_sent_again_after_a_crash(world: World) -> None:
    left = proposal(
        state=State.CALLING,
        offer=offer(expires_at=world.clock() + timedelta(minutes=15)),
        confirmed_by="U0ONCALLA1",
        approved_at=world.clock(),
        called=preview(counts=Counts(dict(world.cloud.counts), world.clock())),
        calls=(Call(0, 1, intent("n-left", date=world.clock(), deadline=world.clock() + timedelta(seconds=10))),),
    )
    await world.keep(left)
    after = await world.go_on()
    assert [sent.nonce for sent in world.cloud.sent] == ["n-left"]
    assert outcome(after) is OutcomeCode.STOPPED


async def test_a_follow_goes_on_after_a_crash(world: World) -> None:
    world.cloud.counts |= {TaskState.QUEUED: 0, TaskState.CANCELED: 9}
    left = proposal(
        state=State.FOLLOWING,
        offer=offer(),
        confirmed_by="U0ONCALLA1",
        approved_at=world.clock(),
        called=preview(counts=Counts(dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: 9}, world.clock())),
        calls=(Call(0, 1, intent("n-left"), CallAnswer.ACCEPTED, "RID"),),
        steps_done=1,
        follow_until=world.clock() + timedelta(minutes=15),
    )
    await world.keep(left)
    assert outcome(await world.go_on()) is OutcomeCode.STOPPED
    assert world.cloud.sent == []


@pytest.mark.parametrize(
    ("answer", "seconds", "code"),
    [
        (CallAnswer.THROTTLED, 121, OutcomeCode.REFUSED_BY_CLOUD),
        (CallAnswer.NOT_SENT, 61, OutcomeCode.NOT_DONE),
        (CallAnswer.THROTTLED, 61, OutcomeCode.STOPPED),
        (CallAnswer.NOT_SENT, 5, OutcomeCode.STOPPED),
    ],
)
async def test_a_deferred_attempt_goes_on_after_a_crash_if_there_is_time(
    world: World, answer: CallAnswer, seconds: float, code: OutcomeCode
) -> None:
    left = proposal(
        state=State.CALLING,
        offer=offer(),
        confirmed_by="U0ONCALLA1",
        approved_at=world.clock(),
        called=preview(counts=Counts(dict(world.cloud.counts), world.clock())),
        calls=(Call(0, 1, intent("n-left"), answer, detail="The cloud was busy."),),
    )
    await world.keep(left)
    world.clock.pass_by(seconds)
    assert outcome(await world.go_on()) is code


async def test_a_received_proposal_is_offered_after_a_crash(world: World) -> None:
    await world.keep(proposal())
    assert (await world.go_on()).state is State.OFFERED


async def test_work_that_always_fails_ends_and_says_so(world: World) -> None:
    await world.keep(proposal())

    def stumble() -> None:
        raise RuntimeError("a bug")

    world.cloud.on_read = stumble
    async with Road(world.means) as road:
        for _ in range(ATTEMPTS + 1):
            await road.sweep_once()
            await road.drain()
    after = await world.last()
    assert outcome(after) is OutcomeCode.NOT_DONE
    assert "Something broke inside otabrake" in await world.said(PostKind.BROADCAST)


async def test_a_delivery_that_always_fails_is_answered(world: World) -> None:
    world.crowd.trouble = RuntimeError("a bug")
    async with Road(world.means) as road:
        await road.receive(delivery(received_at=world.clock()))
        for _ in range(ATTEMPTS + 1):
            await road.drain()
            await road.sweep_once()
        await road.drain()
    assert "Something broke inside otabrake" in await world.said(PostKind.REPLY)
    assert await world.found_open() == []


async def test_a_database_that_goes_away_during_work_is_waited_for(world: World) -> None:
    await world.ask()
    gone = [StoreUnavailable("away")]
    save = world.store.save

    async def flaky(transition: Any) -> bool:
        if gone:
            raise gone.pop()
        return await save(transition)

    world.store.save = flaky  # type: ignore[method-assign]
    after = await world.click()
    assert after.state is State.OFFERED
    assert outcome(await world.go_on()) is OutcomeCode.STOPPED


# Asking and clicking.


@pytest.mark.parametrize(
    ("bent", "said"),
    [
        ({"instance": "nowhere"}, "Known instances: prod-shanghai, staging."),
        ({"instance": "staging"}, "does not allow job.cancel here for you"),
    ],
)
async def test_an_ask_for_the_wrong_instance_is_answered(world: World, bent: dict[str, Any], said: str) -> None:
    assert await world.ask(**bent) is None
    assert said in await world.said(PostKind.REPLY)


async def test_a_reason_that_is_required_is_asked_for_with_the_line_to_type(world: World) -> None:
    world.cloud.counts[TaskState.QUEUED] = 501
    after = await world.ask(reason=None, params=frozenset({"queued"}))
    assert outcome(after) is OutcomeCode.NOT_DONE
    assert "/ota cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai --queued because …" in await world.said(PostKind.REPLY)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Unidentified("gone."), OutcomeCode.DENIED), (PeopleUnavailable("down"), OutcomeCode.NOT_DONE)],
)
async def test_a_person_who_cannot_be_known_when_an_offer_is_made_ends_it(
    world: World, trouble: Exception, code: OutcomeCode
) -> None:
    await world.keep(proposal())
    world.crowd.trouble = trouble
    assert outcome(await world.go_on()) is code


async def test_an_instance_that_left_the_policy_ends_a_proposal(world: World) -> None:
    await world.keep(proposal(target=Target("gone", "j")))
    assert outcome(await world.go_on()) is OutcomeCode.NOT_DONE
    assert "there is no instance called gone" in await world.said(PostKind.REPLY)


async def test_a_proposal_without_a_policy_ends_and_says_so(world: World) -> None:
    await world.keep(proposal())
    world.policy[0] = None
    assert outcome(await world.go_on()) is OutcomeCode.NOT_DONE


async def test_of_two_asks_at_the_same_moment_one_yields(world: World) -> None:
    await world.keep(proposal(proposal_id="p1"))
    await world.keep(proposal(proposal_id="p2"))
    await world.go_on()
    both = [await world.store.fetch_proposal(name) for name in ("p1", "p2")]
    assert sorted(each.state for each in both if each) == [State.FINISHED, State.OFFERED]
    assert "already waiting" in await world.said(PostKind.REPLY)


async def test_a_cancel_that_names_nothing_of_a_dynamic_rollout_points_to_halt(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.counts[TaskState.QUEUED] = 0
    assert outcome(await world.ask()) is OutcomeCode.NOTHING_TO_STOP
    assert "/ota halt" in await world.said(PostKind.REPLY)


async def test_numbers_that_are_unknown_are_no_reason_to_call_it_nothing(world: World) -> None:
    world.cloud.counts[TaskState.QUEUED] = None
    bare = "\n".join(line for line in RULES.splitlines() if "devices" not in line)
    world.policy[0] = load({"p.yaml": bare.encode()}, operations=KNOWN)
    after = await world.ask()
    assert after is not None
    assert after.state is State.OFFERED


@pytest.mark.parametrize("trouble", [Unidentified("gone."), PeopleUnavailable("down")])
async def test_a_click_of_somebody_unknown_leaves_the_card_as_it_is(world: World, trouble: Exception) -> None:
    await world.ask()
    world.crowd.trouble = trouble
    assert (await world.click()).state is State.OFFERED
    world.crowd.trouble = None
    assert outcome(await world.click()) is OutcomeCode.STOPPED


async def test_a_click_on_an_unknown_offer_is_answered(world: World) -> None:
    await world.ask()
    assert (await world.click(offer_id="f" * 32)).state is State.OFFERED
    assert "That card is not known here" in await world.said(PostKind.REPLY)


async def test_a_click_that_waited_too_long_does_not_count(world: World) -> None:
    waiting = await world.ask()
    assert waiting is not None
    assert waiting.offer is not None
    late = delivery("late", content=Click(Choice.CONFIRM, waiting.offer.offer_id), received_at=world.clock())
    world.clock.pass_by(61)
    await world.take(late)
    assert "arrived too late to count" in await world.said(PostKind.REPLY)
    assert world.cloud.sent == []


async def test_a_click_without_a_policy_does_not_count(world: World) -> None:
    await world.ask()
    world.policy[0] = None
    assert (await world.click()).state is State.OFFERED


async def test_a_yes_that_now_needs_a_reason_does_not_count(world: World) -> None:
    await world.ask(reason=None)
    stricter = RULES.replace("more_than: 500}", "more_than: 5}")
    world.policy[0] = load({"p.yaml": stricter.encode()}, operations=KNOWN)
    assert (await world.click()).state is State.OFFERED
    assert "the policy now requires a reason" in await world.said(PostKind.REPLY)


async def test_a_click_that_does_not_count_reads_nothing_of_the_cloud(world: World) -> None:
    await world.ask()
    reads: list[bool] = []
    world.cloud.on_read = lambda: reads.append(True)
    world.policy[0] = None
    await world.click()
    assert reads == []


async def test_who_confirms_becomes_the_requester(world: World) -> None:
    await world.ask()
    after = await world.click(user="U0ONCALLB2")
    assert (after.requester, after.confirmed_by) == ("U0ONCALLB2", "U0ONCALLB2")


async def test_ten_clicks_at_once_are_one_yes(world: World) -> None:
    waiting = await world.ask()
    assert waiting is not None
    assert waiting.offer is not None
    click = Click(Choice.CONFIRM, waiting.offer.offer_id)
    async with Road(world.means) as road:
        await asyncio.gather(
            *(road.receive(delivery(f"c{n}", content=click, received_at=world.clock())) for n in range(10))
        )
        await road.drain()
    assert len(world.cloud.sent) == 1


async def test_a_yes_and_a_no_at_once_are_one_of_them(world: World) -> None:
    waiting = await world.ask()
    assert waiting is not None
    assert waiting.offer is not None
    async with Road(world.means) as road:
        await asyncio.gather(
            *(
                road.receive(
                    delivery(f"c{choice}", content=Click(choice, waiting.offer.offer_id), received_at=world.clock())
                )
                for choice in Choice
            )
        )
        await road.drain()
    after = await world.last()
    assert len(world.cloud.sent) == (0 if outcome(after) is OutcomeCode.DISMISSED else 1)
    assert "It is" in await world.said(PostKind.REPLY)
