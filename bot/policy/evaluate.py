"""What each condition of each rule makes of a question, and which rules match.

A fact that could not be learnt counts as true in deny and require and as false in allow; a fact that an operation does
not have makes its condition false everywhere. The only evaluator: `decide` draws the decision from it, `denials` and
`explain` read how it came about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bot.model import UNKNOWN, Actor, Question
from bot.policy.compiled import Index, RuleSet, Words
from bot.policy.rules import RuleKind


class Condition(StrEnum):
    OPERATION = "operation"
    WHO = "who"
    CHANNELS = "channels"
    INSTANCES = "instances"
    PRODUCTS = "products"
    TOUCHES = "touches"
    DEVICES = "devices"


class Reading(NamedTuple):
    """The rules in which a condition holds (or is absent), and those in which its fact could not be learnt."""

    condition: Condition
    holds: RuleSet
    unknown: RuleSet = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every condition's reading, the rules whose `except` is true of the actor, and the rules that match."""

    readings: tuple[Reading, ...]
    excepted: RuleSet
    matching: RuleSet

    @property
    def unknown(self) -> RuleSet:
        """The rules with a condition whose fact could not be learnt."""
        found = 0
        for reading in self.readings:
            found |= reading.unknown
        return found


def evaluate(index: Index, question: Question) -> Evaluation:
    readings = (
        *read_place(index, question.actor, question.operation, question.channel),
        Reading(Condition.INSTANCES, index.instances.passing(question.instance)),
        _read_product(index, question),
        _read_touches(index, question),
        _read_devices(index, question),
    )
    careful = index.everything & ~index.kinds[RuleKind.ALLOW]
    excepted = index.excepted.passing(question.actor)
    matching = index.everything & ~excepted
    for _, holds, unknown in readings:
        matching &= holds | (unknown & careful)
    return Evaluation(readings, excepted, matching)


def read_place(index: Index, actor: Actor, operation: str, channel: str | None) -> tuple[Reading, ...]:
    """The conditions that can be read before anything of the target is known."""
    return (
        Reading(Condition.OPERATION, index.operations.get(operation, 0)),
        Reading(Condition.WHO, index.who.passing(actor)),
        Reading(Condition.CHANNELS, _passing(index.channels, channel)),
    )


def _passing(words: Words, word: str | None) -> RuleSet:
    return words.free if word is None else words.passing(word)


def _read_product(index: Index, question: Question) -> Reading:
    free, product = index.products.free, question.product
    if product is UNKNOWN:
        return Reading(Condition.PRODUCTS, free, index.everything & ~free)
    return Reading(Condition.PRODUCTS, _passing(index.products, product))


def _read_touches(index: Index, question: Question) -> Reading:
    free, touches = index.touches_free, question.touches
    if touches is UNKNOWN:
        return Reading(Condition.TOUCHES, free, index.everything & ~free)
    holds = free
    for touch in touches or ():
        holds |= index.touches.get(touch, 0)
    return Reading(Condition.TOUCHES, holds)


def _read_devices(index: Index, question: Question) -> Reading:
    free, devices = index.devices.free, question.devices
    if devices is UNKNOWN:
        return Reading(Condition.DEVICES, free, index.everything & ~free)
    return Reading(Condition.DEVICES, free if devices is None else index.devices.passing(devices))
