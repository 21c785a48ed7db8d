"""The state machine: every pair of state and answer, and the property that nothing is called without its yes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import OutOfTurn
from bot.model import Effect, Notice, Outcome, OutcomeCode, Requirements
from bot.proposals import (
    ANSWERS,
    ENDS,
    TABLE,
    Accepted,
    Answer,
    Call,
    CallAnswer,
    Called,
    Confirmed,
    Deferred,
    Ended,
    GivenUp,
    Lost,
    Offered,
    Progress,
    Proposal,
    State,
    advance,
    diagram,
)
from tests.values import AT, PLACE, TARGET, counts, decision, intent, offer, preview, proposal

LATER = AT + timedelta(seconds=5)


def end(code: OutcomeCode) -> Ended:
    return Ended(Outcome(code, Notice("over")))


ADMISSIBLE: dict[type[Answer], Answer] = {
    Offered: Offered(offer()),
    Confirmed: Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE),
    Called: Called(intent("n2"), preview(counts=counts(QUEUED=3)), (intent().step,)),
    Accepted: Accepted("RID", True, LATER),
    Deferred: Deferred(CallAnswer.NOT_SENT, "refused"),
    Lost: Lost("timeout"),
    GivenUp: GivenUp(CallAnswer.REFUSED, False, LATER, "iot.ota.JobHasCanceled", "RID"),
    Progress: Progress({TARGET.job: counts(CANCELED=3)}),
}


def in_state(state: State) -> Proposal:
    """A proposal as the road would have brought it there."""
    made = replace(proposal(), state=state)
    if state is not State.RECEIVED:
        made = replace(made, offer=offer())
    if state in (State.APPROVED, State.CALLING, State.UNKNOWN, State.FOLLOWING):
        made = replace(made, confirmed_by="U0ONCALLA1", approved_at=AT)
    if state in (State.CALLING, State.UNKNOWN):
        answer = CallAnswer.LOST if state is State.UNKNOWN else None
        made = replace(made, calls=(Call(0, 1, intent(), answer),))
    if state is State.FOLLOWING:
        done = Call(0, 1, intent(), CallAnswer.ACCEPTED, "RID")
        made = replace(made, calls=(done,), steps_done=1, follow_until=LATER)
    return made


def answer_for(state: State, kind: type[Answer]) -> Answer:
    if kind is Ended:
        return end(min(ENDS.get(state, {OutcomeCode.STOPPED})))
    return ADMISSIBLE[kind]


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("state", State)
def test_each_answer_is_taken_in_the_states_of_the_table_and_nowhere_else(state: State, kind: type[Answer]) -> None:
    before = in_state(state)
    if kind is Called and state is State.CALLING:
        before = replace(before, calls=(Call(0, 1, intent(), CallAnswer.NOT_SENT),))
    answer = answer_for(state, kind)
    if (state, kind) not in TABLE:
        with pytest.raises(OutOfTurn):
            advance(before, answer, LATER)
        return
    after = advance(before, answer, LATER)
    assert after.state in TABLE[state, kind]
    assert after.version == before.version + 1
    assert after.changed_at == LATER


@pytest.mark.parametrize("code", OutcomeCode)
@pytest.mark.parametrize("state", [state for state in State if state is not State.FINISHED])
def test_each_state_ends_with_its_own_codes_only(state: State, code: OutcomeCode) -> None:
    if code in ENDS[state]:
        finished = advance(in_state(state), end(code), LATER)
        assert finished.state is State.FINISHED
        assert finished.outcome is not None
        assert finished.outcome.code is code
    else:
        with pytest.raises(OutOfTurn):
            advance(in_state(state), end(code), LATER)


def test_a_yes_to_another_offer_does_not_count() -> None:
    with pytest.raises(OutOfTurn, match="out of date"):
        advance(in_state(State.OFFERED), Confirmed("f" * 32, "U0ONCALLA1", decision(), PLACE), LATER)


def test_a_yes_at_the_moment_of_expiry_does_not_count() -> None:
    with pytest.raises(OutOfTurn, match="expired"):
        advance(in_state(State.OFFERED), ADMISSIBLE[Confirmed], offer().expires_at)


def test_a_yes_that_the_policy_denies_does_not_count() -> None:
    with pytest.raises(OutOfTurn, match="policy"):
        advance(in_state(State.OFFERED), Confirmed("0" * 32, "U1", decision(effect=Effect.DENY), PLACE), LATER)


def test_a_yes_without_a_required_reason_does_not_count() -> None:
    needs = decision(requirements=Requirements(reason=True))
    with pytest.raises(OutOfTurn, match="reason"):
        advance(replace(in_state(State.OFFERED), reason=None), Confirmed("0" * 32, "U1", needs, PLACE), LATER)


def test_who_confirms_becomes_the_requester() -> None:
    approved = advance(in_state(State.OFFERED), ADMISSIBLE[Confirmed], LATER)
    assert (approved.requester, approved.confirmed_by, approved.approved_at) == ("U0ONCALLB2", "U0ONCALLB2", LATER)


def test_a_new_offer_takes_the_yes_back() -> None:
    again = advance(in_state(State.APPROVED), Offered(offer(offer_id="1" * 32)), LATER)
    assert (again.confirmed_by, again.approved_at) == (None, None)


def test_a_second_attempt_while_one_is_under_way_is_refused() -> None:
    with pytest.raises(OutOfTurn, match="under way"):
        advance(in_state(State.CALLING), Called(intent("n2")), LATER)


def test_the_baseline_of_the_first_attempt_stays() -> None:
    first = advance(in_state(State.APPROVED), Called(intent("n1"), preview(counts=counts(QUEUED=7))), LATER)
    lost = advance(first, Lost("timeout"), LATER)
    second = advance(lost, Called(intent("n2"), preview(counts=counts(QUEUED=1))), LATER)
    assert second.baseline == {TARGET.job: counts(QUEUED=7)}
    assert [call.attempt for call in second.calls] == [1, 2]


def test_a_step_that_is_not_the_last_goes_on_calling() -> None:
    after = advance(in_state(State.CALLING), Accepted("RID", False, LATER), LATER)
    assert (after.state, after.steps_done, after.current_call, after.request_ids) == (State.CALLING, 1, None, ("RID",))


def test_a_step_that_is_given_up_keeps_its_answer_and_the_next_one_is_taken_up() -> None:
    planned = replace(in_state(State.CALLING), steps=(intent().step, intent().step))
    after = advance(planned, ADMISSIBLE[GivenUp], LATER)
    assert (after.state, after.steps_done, after.current_call) == (State.CALLING, 1, None)
    assert after.calls[-1].answer is CallAnswer.REFUSED


def test_steps_that_take_the_place_of_a_given_up_one_stand_before_the_rest() -> None:
    first, second = intent().step, replace(intent().step, touches=frozenset())
    planned = replace(in_state(State.CALLING), steps=(first, second))
    instead = replace(first, devices=("gw-1",))
    after = advance(planned, GivenUp(CallAnswer.REFUSED, False, LATER, "over", instead=(instead,)), LATER)
    assert after.steps == (first, instead, second)


def test_after_the_last_step_was_given_up_what_was_accepted_is_followed() -> None:
    after = advance(in_state(State.UNKNOWN), GivenUp(CallAnswer.LOST, True, LATER, "no answer"), LATER)
    assert (after.state, after.followed_from, after.follow_until) == (State.FOLLOWING, LATER, LATER)


@given(
    st.lists(st.sampled_from(ANSWERS), max_size=12),
    st.lists(st.sampled_from(list(OutcomeCode)), min_size=12, max_size=12),
)
def test_no_path_reaches_the_call_without_a_yes_to_the_standing_offer(
    kinds: list[type[Answer]], codes: list[OutcomeCode]
) -> None:
    now = proposal()
    confirmed_offer: str | None = None
    for kind, code in zip(kinds, codes, strict=False):
        answer = end(code) if kind is Ended else ADMISSIBLE[kind]
        try:
            after = advance(now, answer, LATER)
        except OutOfTurn:
            continue
        if isinstance(answer, Confirmed):
            confirmed_offer = answer.offer_id
        if isinstance(answer, Offered):
            confirmed_offer = None
        if after.state in (State.CALLING, State.UNKNOWN, State.FOLLOWING):
            assert after.offer is not None
            assert confirmed_offer == after.offer.offer_id
            assert after.confirmed_by is not None
        now = after


def test_the_code_map_shows_the_table_as_it_is() -> None:
    readme = Path(__file__).parents[1] / "bot" / "README.md"
    assert diagram() in readme.read_text()
