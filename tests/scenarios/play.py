"""Playing a story: what people do and what happens in it. What its sentences claim stands in `claims`.

An unknown word is an error that quotes the story's line; a claim that does not hold shows the thread as a person would
see it, with audit and fleet.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bot.model import JobState
from bot.sandbox.iot_faults import Fault
from tests.scenarios.claims import CLAIMS, claim_of
from tests.scenarios.ground import Ground, staged
from tests.scenarios.stage import BUTTONS, Stage
from tests.scenarios.story import GROUPS, Run, Sentence, WrongStory, sentence_in
from tests.scenarios.truth import BY_HAND, untruths
from tests.scenarios.wire import Death

_SPAN = re.compile(r"(\d+) (s|min|hours?)")
_SECONDS = {"s": 1, "min": 60, "hour": 3600, "hours": 3600}
_LONGEST_WAIT = 24 * 3600
_WIDTH = 200


class NotSo(AssertionError):
    """What a story says did not hold."""


class NoButton(NotSo):
    """Somebody was to click what is not there. Where the end may be another one, that ends the story."""


async def play(run: Run, ground: Ground) -> None:
    """Plays a story in one cloud. Raises `NotSo`, or `WrongStory` if it cannot be played."""
    story = run.story
    ahead = _span(story.cloud["clock"].removesuffix(" ahead")) if "clock" in story.cloud else 0
    async with staged(ground, story.seed(run.habits), cloud_is_ahead_seconds=ahead) as stage:
        try:
            for sentence in story.acts:
                await _say(stage, sentence, may_claim=run.is_same_end)
        except NoButton:
            if run.is_same_end:
                raise
        if run.is_same_end and stage.wire.is_waiting:
            raise NotSo(await _report(stage, f"{run}: a call at which something was to happen never came"))
        said = await untruths(stage)
        if said:
            raise NotSo(await _report(stage, f"{run}: not true at the end:\n  " + "\n  ".join(said)))
        if run.is_same_end:
            for group in GROUPS:
                for sentence in story.end[group]:
                    await _say(stage, sentence)


async def _say(stage: Stage, sentence: Sentence, *, may_claim: bool = True) -> None:
    who, _, does = sentence.word.rpartition(" ")
    people = {person.handle: person.id for person in stage.slack.workspace.people.values()}
    if who in people and does in GESTURES:
        await GESTURES[does](stage, people[who], sentence)
    elif sentence.word in ACTS:
        await ACTS[sentence.word](stage, sentence)
    elif (claim := claim_of(stage, sentence.word)) is not None:
        if may_claim and (wrong := await claim(stage, sentence)):
            raise NotSo(await _report(stage, f"{sentence}\n  {wrong}"))
    else:
        known = sorted([*ACTS, *CLAIMS, *(f"<person> {word}" for word in GESTURES), "<job>", "<audit entry>"])
        raise WrongStory(f"{sentence}\n  unknown: {sentence.word!r} (known: {', '.join(known)})")


# What people do.


async def _types(stage: Stage, user: str, sentence: Sentence) -> None:
    line = str(sentence.value)
    if "<change>" in line:
        line = line.replace("<change>", (await stage.proposals())[-1].proposal_id[:8])
    await stage.types(user, line)


async def _clicks(stage: Stage, user: str, sentence: Sentence) -> None:
    if sentence.value not in BUTTONS:
        raise WrongStory(f"{sentence}\n  people click {' or '.join(BUTTONS)}")
    await _press(stage, user, BUTTONS[sentence.value], sentence)


async def _press(stage: Stage, user: str, action: str, sentence: Sentence) -> None:
    message = stage.with_button(action, user=user)
    if message is None:
        raise NoButton(await _report(stage, f"{sentence}\n  there is no such button"))
    await stage.clicks(user, message, action)


GESTURES: Mapping[str, Callable[[Stage, str, Sentence], Awaitable[None]]] = {"types": _types, "clicks": _clicks}


# What happens.


async def _time_passes(stage: Stage, sentence: Sentence) -> None:
    stage.clock.pass_by(_span(sentence.value))


async def _finishes(stage: Stage, sentence: Sentence) -> None:
    """Time passes until the rollout has finished by itself."""
    rollout = stage.fleet.job(str(sentence.value))
    for _ in range(_LONGEST_WAIT):
        if rollout.state(stage.clock.seconds()) is JobState.COMPLETED:
            return
        stage.clock.pass_by(1)
    raise WrongStory(f"{sentence}\n  it does not finish within a day")


async def _breaks(stage: Stage, sentence: Sentence) -> None:
    told = dict(sentence.value)
    seconds = _span(told.pop("for")) if "for" in told else None
    fields = {"kind": told.pop("how", ""), "action": told.pop("call", None), **told}
    try:
        fault = Fault.from_json(fields)
    except ValueError as error:
        raise WrongStory(f"{sentence}\n  {error}") from error
    stage.wire.break_down(fault, seconds=seconds)


async def _mends(stage: Stage, sentence: Sentence) -> None:
    stage.wire.mend()


async def _by_hand(stage: Stage, sentence: Sentence) -> None:
    """Somebody cancels in the cloud's console: all that has not begun."""
    flags = {"CancelQueuedTask": True, "CancelNotifiedTask": True, "CancelScheduledTask": True}
    stage.fleet.cancel_tasks(str(sentence.value), flags, request_id=BY_HAND)


def _at_next(*, is_change: bool) -> Callable[[Stage, Sentence], Awaitable[None]]:
    async def wait_for_it(stage: Stage, sentence: Sentence) -> None:
        inner = sentence_in(sentence)
        if inner.word not in ACTS:
            raise WrongStory(f"{inner}\n  {sentence.word} only this can happen: {', '.join(ACTS)}")
        stage.wire.act_at_next(lambda: _say(stage, inner), is_change=is_change)

    return wait_for_it


async def _dies(stage: Stage, sentence: Sentence) -> None:
    words = {death.value: death for death in Death}
    if sentence.value not in words:
        raise WrongStory(f"{sentence}\n  it dies {' or '.join(words)}")
    stage.wire.die_at_next_change(words[sentence.value])


async def _starts(stage: Stage, sentence: Sentence) -> None:
    if stage.bot is not None:
        raise WrongStory(f"{sentence}\n  it is not dead: no call came at which it was to die")
    stage.clock.pass_by(_span(sentence.value))
    await stage.open_bot()


async def _sweeps(stage: Stage, sentence: Sentence) -> None:
    """Time passes, and the bot looks what is due, as it does every second."""
    stage.clock.pass_by(_span(sentence.value))
    assert stage.bot is not None
    await stage.bot.road.sweep_once()
    await stage.settled()


ACTS: Mapping[str, Callable[[Stage, Sentence], Awaitable[None]]] = {
    "time passes": _time_passes,
    "nobody does anything for": _sweeps,
    "the rollout finishes": _finishes,
    "somebody cancels by hand": _by_hand,
    "the cloud breaks": _breaks,
    "the cloud is mended": _mends,
    "at the last look": _at_next(is_change=False),
    "at the call": _at_next(is_change=True),
    "the bot dies": _dies,
    "the bot starts again after": _starts,
}


def _span(words: Any) -> float:
    match = _SPAN.fullmatch(str(words))
    if match is None:
        raise WrongStory(f"{words!r} is no span of time (30 s, 5 min, 1 hour)")
    return int(match[1]) * _SECONDS[match[2]]


async def _report(stage: Stage, wrong: str) -> str:
    """What is wrong, and all that a person and an auditor would see."""
    now, rollouts = stage.clock.seconds(), stage.fleet.rollouts
    fleet = [f"{job}: {rollout.state(now).value} {rollout.counts(now)}" for job, rollout in rollouts.items()]
    done = [f"{effect.action} {dict(effect.params)}" for effect in stage.fleet.history]
    entries = [f"{name} {facts}" for name, facts in await stage.entries()] if stage.bot is not None else []
    below = ["The fleet:", *fleet, *done, "The audit:", *entries]
    return "\n".join([wrong, "As people see it:", stage.as_seen(), *(f"  {line[:_WIDTH]}" for line in below)])
