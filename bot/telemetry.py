"""Who is told what happens: the canonical lines of the log, and whoever else listens.

There is one line for each delivery, signed call and finished proposal, with all that is known of it, so that a question
about one of them is one look into the log. What only has a line when it goes wrong is logged where it does. What it
does not do: log a token, a signature, a response address, or what people wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from bot.audit import Entry, EntryName, Fact
from bot.exchange import Ask, Click, Delivery, Pick, ReplyTo, Resume
from bot.model import Effect, OutcomeCode
from bot.ports.telemetry import (
    Acknowledged,
    AckResult,
    CallMade,
    Claimed,
    Happening,
    Received,
    Telemetry,
    TurnedAway,
    Written,
)
from bot.proposals import Proposal, State
from bot.workflow.means import Log

REMEMBERED = 2_000
"""So many deliveries and calls that are not over yet are kept in mind, to be told of in one line."""

_KINDS: Mapping[type, str] = {Ask: "command", Resume: "command", Click: "click", Pick: "pick"}
_TROUBLE = (AckResult.LATE, AckResult.NOT_WRITTEN, AckResult.FAILED, AckResult.MALFORMED)
_ALLOWED = (EntryName.OFFERED, EntryName.REOFFERED, EntryName.CONFIRMED)

Value = TypeVar("Value")


def kind_of(delivery: Delivery) -> str:
    """What people would call it."""
    content = type(delivery.content)
    return _KINDS.get(content, content.__name__.casefold())


def effect_of(entry: Entry) -> str | None:
    """What the policy said, as far as this entry tells it."""
    if entry.name in _ALLOWED:
        return Effect.ALLOW.value
    if entry.facts.get("why") == "denied" or entry.facts.get("outcome") == OutcomeCode.DENIED.value:
        return Effect.DENY.value
    told = entry.facts.get("effect")
    return told if isinstance(told, str) else None


def spans_of(proposal: Proposal) -> dict[str, float]:
    """How many seconds a finished proposal took, in all and from one stage to the next, as far as it came."""
    offer, end = proposal.offer, proposal.changed_at
    stages = {
        "offer": (proposal.created_at, offer.made_at if offer is not None else None),
        "yes": (offer.made_at if offer is not None else None, proposal.approved_at),
        "accept": (proposal.approved_at, proposal.followed_from),
        "follow": (proposal.followed_from, end),
        "total": (proposal.created_at, end),
    }
    return {
        stage: max(0.0, round((until - since).total_seconds(), 3))
        for stage, (since, until) in stages.items()
        if since is not None and until is not None
    }


class Everybody:
    """A `Telemetry` for several. What goes wrong in one of them is logged, and hurts nothing that is done here."""

    def __init__(self, listening: Sequence[Telemetry], *, log: Log) -> None:
        self._listening = tuple(listening)
        self._log = log

    def note(self, happening: Happening) -> None:
        for each in self._listening:
            try:
                each.note(happening)
            except Exception as error:  # what it was told of is committed already: nobody may hear that it failed
                self._log.error("not noted", what=type(happening).__name__, exc_info=error)


class CanonicalLines:
    """A `Telemetry` that writes the canonical lines. `clock` is that by which deliveries were received."""

    def __init__(self, log: Log, *, clock: Callable[[], datetime]) -> None:
        self._log = log
        self._clock = clock
        self._deliveries: OrderedDict[str, Delivery] = OrderedDict()
        self._acks: OrderedDict[str, float] = OrderedDict()
        self._attempts: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._takers: Mapping[type, Callable[[Any], None]] = {
            TurnedAway: self._turned_away,
            Received: self._received,
            Claimed: self._claimed,
            Acknowledged: self._acknowledged,
            Written: self._written,
            CallMade: self._called,
        }

    def note(self, happening: Happening) -> None:
        taker = self._takers.get(type(happening))
        if taker is not None:
            taker(happening)

    def _turned_away(self, what: TurnedAway) -> None:
        self._log.info("refused at the gate", status=what.status, why=what.why)

    def _received(self, what: Received) -> None:
        if what.is_new:
            _remember(self._deliveries, what.delivery.delivery_id, what.delivery)

    def _claimed(self, what: Claimed) -> None:
        if what.delivery is not None:
            _remember(self._deliveries, what.delivery.delivery_id, what.delivery)

    def _acknowledged(self, what: Acknowledged) -> None:
        """What was written has its line when it is answered; for everything else this was the end."""
        milliseconds = _milliseconds(what.seconds)
        if what.result is AckResult.WRITTEN and what.delivery is not None:
            _remember(self._acks, what.delivery.delivery_id, milliseconds)
            return
        facts = {"kind": what.kind} | _of_delivery(what.delivery, what.reply_to)
        if what.delivery is not None and what.result is AckResult.LATE:  # it may have been written; a copy never is
            facts |= {"delivery": what.delivery.delivery_id}
        facts |= {"result": what.result.value, "why": what.why, "ack_ms": milliseconds}
        if what.reference is not None:
            facts |= {"reference": what.reference}
        if what.error is not None:
            facts |= {"exc_info": what.error}
        level = self._log.error if what.result in _TROUBLE else self._log.info
        level("delivery:ended", **_ENDED | facts | {"is_duplicate": what.result is AckResult.DUPLICATE})

    def _written(self, what: Written) -> None:
        if what.handled is not None:
            self._end_delivery(what.handled, what)
        if what.transition is None:
            return
        after = what.transition.after
        if after.state is State.FINISHED:
            self._log.info("proposal:ended", **_of_finished(after, what.entries))
        elif after.state is State.CALLING and (call := after.current_call) is not None and call.answer is None:
            _remember(self._attempts, call.intent.nonce, (after.proposal_id, call.attempt))

    def _end_delivery(self, delivery_id: str, what: Written) -> None:
        delivery = self._deliveries.pop(delivery_id, None)
        entry = what.entries[0] if what.entries else None
        facts: dict[str, object] = {"delivery": delivery_id, "result": "answered"}
        facts |= _of_delivery(delivery, delivery.reply_to if delivery is not None else None)
        if entry is not None:
            facts |= {name: entry.facts[name] for name in ("operation", "instance", "job") if entry.facts.get(name)}
            facts |= {"actor": entry.actor, "decision": effect_of(entry), "proposal": entry.proposal_id}
            facts |= {"why": entry.facts.get("why")}
        if what.transition is not None:
            facts |= _of_proposal(what.transition.after) | {"state": what.transition.after.state.value}
        if delivery is not None:
            facts |= {"answer_ms": _milliseconds((self._clock() - delivery.received_at).total_seconds())}
        self._log.info("delivery:ended", **_ENDED | facts | {"ack_ms": self._acks.pop(delivery_id, None)})

    def _called(self, what: CallMade) -> None:
        proposal, attempt = self._attempts.get(what.nonce or "", (None, what.copy))
        self._log.info(
            "call:ended",
            action=what.action,
            instance=what.instance,
            step=what.step,
            job=what.job,
            code=what.code,
            request_id=what.request_id,
            attempt=attempt,
            ms=None if what.seconds is None else _milliseconds(what.seconds),
            waited_ms=_milliseconds(what.waited_seconds),
            proposal=proposal,
        )


_ENDED: dict[str, object] = {
    "delivery": None,
    "kind": None,
    "result": None,
    "operation": None,
    "instance": None,
    "job": None,
    "actor": None,
    "channel": None,
    "decision": None,
    "why": None,
    "proposal": None,
    "state": None,
    "ack_ms": None,
    "answer_ms": None,
    "is_duplicate": False,
}
"""What stands in the line of each delivery, known or not."""


def _of_delivery(delivery: Delivery | None, reply_to: ReplyTo | None) -> dict[str, object]:
    if delivery is None:
        return {"actor": reply_to.user_id, "channel": reply_to.place.channel} if reply_to is not None else {}
    facts: dict[str, object] = {
        "kind": kind_of(delivery),
        "actor": delivery.reply_to.user_id,
        "channel": delivery.reply_to.place.channel,
    }
    content = delivery.content
    if isinstance(content, Ask):
        facts |= {"operation": content.operation, "instance": content.instance, "job": content.job or None}
    return facts


def _of_proposal(proposal: Proposal) -> dict[str, object]:
    target = proposal.target
    return {
        "proposal": proposal.proposal_id,
        "operation": proposal.operation,
        "instance": target.instance,
        "job": target.job or None,
    }


def _of_finished(proposal: Proposal, entries: Sequence[Entry]) -> dict[str, object]:
    outcome = proposal.outcome
    facts: Mapping[str, Fact] = entries[0].facts if entries else {}
    counts = {name: getattr(outcome, name) for name in ("stopped", "finished_anyway", "failed", "still_moving")}
    return _of_proposal(proposal) | {
        "outcome": outcome.code.value if outcome is not None else None,
        "requester": proposal.requester,
        "ended_by": entries[0].actor if entries else None,
        "why": facts.get("why"),
        **{name: count for name, count in counts.items() if count is not None},
        "steps": len(proposal.steps),
        "calls": len(proposal.calls),
        "request_ids": list(proposal.request_ids),
        **{f"{stage}_seconds": seconds for stage, seconds in spans_of(proposal).items()},
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _remember(kept: OrderedDict[str, Value], key: str, value: Value) -> None:
    """Forgets the oldest where there are too many."""
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
