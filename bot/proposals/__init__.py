"""A proposal, its answers, and the state machine that holds them together."""

from bot.proposals.answers import (
    ANSWERS,
    Accepted,
    Answer,
    Called,
    Confirmed,
    Deferred,
    Ended,
    GivenUp,
    Lost,
    Offered,
    Progress,
)
from bot.proposals.machine import ENDS, TABLE, advance, diagram
from bot.proposals.values import PENDING, Call, CallAnswer, Proposal, State

__all__ = [
    "ANSWERS",
    "ENDS",
    "PENDING",
    "TABLE",
    "Accepted",
    "Answer",
    "Call",
    "CallAnswer",
    "Called",
    "Confirmed",
    "Deferred",
    "Ended",
    "GivenUp",
    "Lost",
    "Offered",
    "Progress",
    "Proposal",
    "State",
    "advance",
    "diagram",
]
