"""Stories as they are written: YAML with the line of every sentence, and the clouds in which one is played.

Unknown words are errors that quote the line. What the sentences do stands in `play`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bot.sandbox.questions import QUESTIONS

FOLDER = Path(__file__).parent
GROUPS = ("the fleet", "the thread", "the audit")
_CLOUD = {"rollouts", "habits", "instance", "clock"}
_VALUES = {question.name: question.values for question in QUESTIONS}
INSTANCE = "iot-cn-0pp1n8t0001"


class WrongStory(Exception):
    """A story that cannot be played, with its file and line."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that happens or must hold: the word before the colon, and what stands behind it."""

    place: str
    word: str
    value: Any

    def __str__(self) -> str:
        return f"{self.place}: {self.word}: {self.value}"


@dataclass(frozen=True, slots=True)
class Story:
    """`same_end` are habits that must not change the end, `true_end` those that may: then only lies are looked for."""

    name: str
    title: str
    why: str
    cloud: Mapping[str, Any]
    acts: tuple[Sentence, ...]
    end: Mapping[str, tuple[Sentence, ...]]
    same_end: tuple[str, ...] = ()
    true_end: tuple[str, ...] = ()

    def seed(self, habits: Mapping[str, Any]) -> dict[str, Any]:
        """The fleet in a cloud with these habits."""
        told = {**self.cloud.get("habits", {}), **habits}
        return seed_of(self.cloud["rollouts"], instance=self.cloud.get("instance", INSTANCE), habits=told)


def seed_of(
    rollouts: Sequence[Mapping[str, Any]], *, instance: str = INSTANCE, habits: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A fleet as `seed_fleet.yaml` would describe it: rollouts of one build. What is left out is filled in."""
    package = {"firmware_id": "Gw421", "product_key": "a1Gateway01", "instance_id": instance}
    usual = {**package, "kind": "static", "src_versions": ["4.1.9"]}
    return {
        "instances": [{"instance_id": instance, "name": "prod-shanghai", "region": "cn-shanghai"}],
        "products": [{"product_key": "a1Gateway01", "name": "Gateway G1"}],
        "firmwares": [{**package, "name": "gateway-4.2.1", "dest_version": "4.2.1"}],
        "jobs": [{"device_prefix": f"{row['job_id']}-", **usual, **row} for row in rollouts],
        "habits": dict(habits or {}),
    }


@dataclass(frozen=True, slots=True)
class Run:
    """A story in one cloud. Where `is_same_end`, all that the story says of the end must hold."""

    story: Story
    habits: Mapping[str, Any] = field(default_factory=dict)
    is_same_end: bool = True

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={value}" for name, value in self.habits.items())
        how = "as told" if not changed else "the same end" if self.is_same_end else "a true end"
        return f"{self.story.name}: {how}{' with ' if changed else ''}{changed}"


def runs(story: Story) -> Iterator[Run]:
    """As it is told, and then with all the habits the other way, in as many rounds as one of them has other values."""
    yield Run(story)
    for names, is_same_end in ((story.same_end, True), (story.true_end, False)):
        others = {name: _others(story, name) for name in names}
        for number in range(max(map(len, others.values()), default=0)):
            changed = {name: values[number % len(values)] for name, values in others.items()}
            yield Run(story, changed, is_same_end=is_same_end)


def _others(story: Story, name: str) -> list[Any]:
    """The other values of a habit, as `POST /_sandbox/habits` takes them."""
    usual = story.cloud.get("habits", {}).get(name, next(each.default for each in QUESTIONS if each.name == name))
    return [dict(value) if isinstance(value, tuple) else value for value in _VALUES[name] if value != usual]


def load_stories(folder: Path = FOLDER) -> tuple[Story, ...]:
    """Every story of a folder, by name. Raises `WrongStory`."""
    return tuple(read_story(path.read_text(encoding="utf-8"), path.name) for path in sorted(folder.glob("*.yaml")))


def read_story(text: str, name: str) -> Story:
    """A story from its text. Raises `WrongStory` with the place."""
    try:
        told = yaml.load(text, _Lines)
    except yaml.YAMLError as error:
        raise WrongStory(f"{name}: {error}") from error
    _check(told, {"title", "why", "cloud", "story", "end"}, {"both ways"}, name)
    _check(told["cloud"], {"rollouts"}, _CLOUD, name)
    _check(told["end"], set(GROUPS), set(), name)
    ways = told.get("both ways", {})
    _check(ways, set(), {"same end", "true end"}, name)
    for habit in (habit for habits in ways.values() for habit in habits if habit not in _VALUES):
        raise WrongStory(f"{name}: there is no habit {habit}; those of a cloud are in bot/sandbox/habits.py")
    return Story(
        name=name.removesuffix(".yaml"),
        title=told["title"],
        why=told["why"],
        cloud=told["cloud"],
        acts=_sentences(told["story"], name),
        end={group: _sentences(told["end"][group], name) for group in GROUPS},
        same_end=tuple(ways.get("same end", ())),
        true_end=tuple(ways.get("true end", ())),
    )


def sentence_in(outer: Sentence) -> Sentence:
    """The sentence that stands behind the colon of another one."""
    [inner] = _sentences([outer.value], outer.place.partition(":")[0])
    return inner


class _Placed(dict[Any, Any]):
    """A mapping that knows its line."""

    line: int


class _Lines(yaml.SafeLoader):
    """Keeps the line of each mapping, and takes no word twice."""


def _placed(loader: _Lines, node: yaml.MappingNode) -> _Placed:
    pairs = [(loader.construct_object(key), loader.construct_object(value, deep=True)) for key, value in node.value]
    placed = _Placed(pairs)
    placed.line = node.start_mark.line + 1
    if len(placed) < len(pairs):
        raise yaml.YAMLError(f"line {placed.line}: a word stands there twice")
    return placed


_Lines.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _placed)


def _check(told: Any, needed: set[str], may: set[str], name: str) -> None:
    line = f"{name}:{told.line}" if isinstance(told, _Placed) else name
    if not isinstance(told, dict):
        raise WrongStory(f"{line}: here should stand {', '.join(sorted(needed | may))}")
    if missing := sorted(needed - set(told)):
        raise WrongStory(f"{line}: missing: {', '.join(missing)}")
    if unknown := sorted(set(told) - needed - may):
        raise WrongStory(f"{line}: unknown: {', '.join(unknown)} (known: {', '.join(sorted(needed | may))})")


def _sentences(told: Sequence[Any], name: str) -> tuple[Sentence, ...]:
    found = []
    for each in told or ():
        if not isinstance(each, _Placed) or len(each) != 1:
            raise WrongStory(f"{name}: a sentence is one word, a colon and what it says, not {each!r}")
        [(word, value)] = each.items()
        found.append(Sentence(f"{name}:{each.line}", str(word), value))
    return tuple(found)
