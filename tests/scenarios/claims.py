"""What a story says that must hold: each claim looks at the stage, and gives what is wrong or nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatch
from typing import Any

from bot.sandbox.workspace import Message
from tests.scenarios.stage import BUTTONS, CHANNEL, Stage
from tests.scenarios.story import Sentence, WrongStory
from tests.scenarios.truth import effects

Claim = Callable[[Stage, Sentence], Awaitable[str | None]]


def claim_of(stage: Stage, word: str) -> Claim | None:
    if word in stage.fleet.rollouts:
        return _rollout_is
    return _entry_has if re.fullmatch(r"[a-z]+:[a-z_]+", word) else CLAIMS.get(word)


async def _rollout_is(stage: Stage, sentence: Sentence) -> str | None:
    now, rollout = stage.clock.seconds(), stage.fleet.rollouts[sentence.word]
    is_now: dict[str, Any] = {
        **rollout.counts(now),
        "state": rollout.state(now).value,
        "rate": round(rollout.settings.per_minute),
        "tags": dict(rollout.settings.tags),
        "strategy": "stands" if rollout.has_strategy(now) else "gone",
    }
    wrong = [
        f"{name} is {is_now.get(name)}" for name, want in sentence.value.items() if not fits(want, is_now.get(name))
    ]
    return "; ".join(wrong) or None


async def _took_effect(stage: Stage, sentence: Sentence) -> str | None:
    found = [effect.action for effect in effects(stage)]
    return None if found == sentence.value else f"took effect: {found}"


async def _was_sent(stage: Stage, sentence: Sentence) -> str | None:
    """Calls as they arrived, copies and refused ones too."""
    found: dict[str, int] = {}
    for arrival in stage.wire.arrivals:
        found[arrival.action] = found.get(arrival.action, 0) + 1
    wrong = [
        f"{name} arrived {found.get(name, 0)}×"
        for name, want in sentence.value.items()
        if not fits(want, found.get(name, 0))
    ]
    return "; ".join(wrong) or None


async def _parameters(stage: Stage, sentence: Sentence) -> str | None:
    """What the last effect's call said; `absent` for what it must not say."""
    sent = effects(stage)[-1].params if effects(stage) else {}
    wrong = [
        f"{name} was {sent.get(name, 'absent')}"
        for name, want in sentence.value.items()
        if sent.get(name, "absent") != want
    ]
    return "; ".join(wrong) or None


async def _says(stage: Stage, sentence: Sentence) -> str | None:
    """These words, in this order."""
    said, place = _text(stage.thread()), 0
    for words in sentence.value if isinstance(sentence.value, list) else [sentence.value]:
        found = said.find(words, place)
        if found < 0:
            where = "comes too early" if words in said else "is not there"
            return f"{words!r} {where}"
        place = found + len(words)
    return None


async def _never_says(stage: Stage, sentence: Sentence) -> str | None:
    said = _text(stage.everything())
    found = [words for words in sentence.value if words in said]
    return f"it does say {found}" if found else None


async def _card_says(stage: Stage, sentence: Sentence) -> str | None:
    words = sentence.value if isinstance(sentence.value, list) else [sentence.value]
    missing = [each for each in words if not stage.cards() or each not in stage.cards()[-1].text]
    return f"it does not say {missing}" if missing else None


async def _last_line(stage: Stage, sentence: Sentence) -> str | None:
    lines = [message for message in stage.slack.workspace.messages(CHANNEL) if message.thread_ts is not None]
    words = sentence.value if isinstance(sentence.value, list) else [sentence.value]
    missing = [each for each in words if not lines or each not in lines[-1].text]
    return f"it does not say {missing}" if missing else None


async def _no_card(stage: Stage, sentence: Sentence) -> str | None:
    return None if len(stage.cards()) == sentence.value else f"{len(stage.cards())} cards"


async def _buttons(stage: Stage, sentence: Sentence) -> str | None:
    is_there = any(stage.with_button(action, user="") is not None for action in BUTTONS.values())
    return None if sentence.value == ("there" if is_there else "gone") else "they are not"


async def _files(stage: Stage, sentence: Sentence) -> str | None:
    """A file of this name (with `*`), with these words or so many lines."""
    found = stage.files()
    for name, want in sentence.value.items():
        contents = [content for each, content in found.items() if fnmatch(each, name)]
        if not contents:
            return f"no {name} among {sorted(found)}"
        rows = contents[0].count("\r\n") - 1
        if isinstance(want, dict) and not fits(want["devices"], rows):
            return f"{rows} devices in it"
        if isinstance(want, str) and want not in contents[0]:
            return f"it has no {want!r}"
    return None


def _told(*, is_told: bool) -> Claim:
    async def claim(stage: Stage, sentence: Sentence) -> str | None:
        people = {person.handle: person.id for person in stage.slack.workspace.people.values()}
        for who, words in sentence.value.items():
            if who not in people:
                raise WrongStory(f"{sentence}\n  there is nobody called {who}")
            said = stage.told(people[who])
            for each in words if isinstance(words, list) else [words]:
                if (each in said) is not is_told:
                    return f"{who} was {'never' if is_told else ''} told {each!r}"
        return None

    return claim


async def _entries(stage: Stage, sentence: Sentence) -> str | None:
    found = [name for name, _ in await stage.entries()]
    return None if found == sentence.value else f"entries: {found}"


async def _entry_has(stage: Stage, sentence: Sentence) -> str | None:
    """The last entry of this name has these facts."""
    facts = [facts for name, facts in await stage.entries() if name == sentence.word]
    if not facts:
        return "there is no such entry"
    wrong = [
        f"{name} is {facts[-1].get(name)}"
        for name, want in sentence.value.items()
        if not fits(want, facts[-1].get(name))
    ]
    return "; ".join(wrong) or None


CLAIMS: Mapping[str, Claim] = {
    "took effect": _took_effect,
    "arrived": _was_sent,
    "the last call said": _parameters,
    "says": _says,
    "never says": _never_says,
    "card says": _card_says,
    "last line": _last_line,
    "cards": _no_card,
    "buttons": _buttons,
    "files": _files,
    "told": _told(is_told=True),
    "never told": _told(is_told=False),
    "entries": _entries,
}


def _text(messages: tuple[Message, ...]) -> str:
    return "\n".join(message.text for message in messages)


def fits(want: Any, value: Any) -> bool:
    """Whether a value is the one that is wanted, or `more than 5`, `less than 5`, `5 to 9`."""
    if isinstance(want, str) and isinstance(value, int) and not isinstance(value, bool):
        if match := re.fullmatch(r"(more|less) than (\d+)", want):
            return value > int(match[2]) if match[1] == "more" else value < int(match[2])
        if match := re.fullmatch(r"(\d+) to (\d+)", want):
            return int(match[1]) <= value <= int(match[2])
    return bool(want == value)
