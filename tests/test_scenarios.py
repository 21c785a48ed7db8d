"""The stories of tests/scenarios, each played in every cloud that could change its end; and that their player notices
what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bot.sandbox.questions import QUESTIONS
from tests.scenarios.claims import CLAIMS, fits
from tests.scenarios.ground import Ground, grounded, staged
from tests.scenarios.play import ACTS, GESTURES, NotSo, play
from tests.scenarios.stage import Stage
from tests.scenarios.story import FOLDER, Run, WrongStory, load_stories, read_story, runs, seed_of
from tests.scenarios.truth import untruths

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORIES = load_stories()
RUNS = [run for story in STORIES for run in runs(story)]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
GATEWAYS = {"job_id": "Gateways421", "starts_in_seconds": -60, "course": {"devices": 60, "per_minute": 20}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with grounded() as made:
        yield made


@pytest.mark.parametrize("run", RUNS, ids=str)
async def test_a_story_ends_as_it_is_told(run: Run, ground: Ground) -> None:
    await play(run, ground)


async def test_the_story_of_the_readme_can_be_played(ground: Ground) -> None:
    for run in runs(read_story(EXAMPLE, "README.md")):
        await play(run, ground)


async def test_every_open_question_of_the_cloud_is_answered_both_ways_in_a_story() -> None:
    asked = {habit for story in STORIES for habit in (*story.same_end, *story.true_end)}
    assert {question.name for question in QUESTIONS} <= asked


async def test_the_readme_lists_the_whole_vocabulary() -> None:
    words = {*ACTS, *CLAIMS, *GESTURES}
    assert {word for word in words if f"{word}`" not in README} == set()


# What is wrong is noticed, and shown with its line.


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("oncall-a clicks:", "oncall-a presses:", r"README.md:9: oncall-a presses: confirm\n.*unknown"),
        ("clicks: confirm", "clicks: ok", r"README.md:9: .*people click confirm or dismiss"),
        ("how: accept_then_timeout", "how: a_bit", r"README.md:7: .*\n.*kind must be one of"),
        ("oncall-a clicks: confirm", "at the call: {says: hello}", r"README.md:9: says: hello\n.*only this can happen"),
    ],
)
async def test_a_sentence_that_nobody_understands_is_quoted(ground: Ground, was: str, becomes: str, said: str) -> None:
    story = read_story(EXAMPLE.replace(was, becomes), "README.md")
    with pytest.raises(WrongStory, match=re.compile(said, re.DOTALL)):
        await play(Run(story), ground)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("title:", "name:", "missing: title"),
        ("  rollouts:", "  rollout:", "README.md:4: missing: rollouts"),
        ("nonce_is_per_key", "nonce_is_blue", "there is no habit nonce_is_blue"),
        ("why:", "title:", "a word stands there twice"),
    ],
)
async def test_a_story_that_is_not_one_is_refused(was: str, becomes: str, said: str) -> None:
    with pytest.raises(WrongStory, match=said):
        read_story(EXAMPLE.replace(was, becomes), "README.md")


async def test_what_does_not_hold_is_shown_as_a_person_would_see_it(ground: Ground) -> None:
    story = read_story(EXAMPLE.replace("not known yet", "all is well"), "README.md")
    with pytest.raises(
        NotSo, match=re.compile("README.md:12: .*all is well.*As people see it.*otabrake: .*The audit", re.DOTALL)
    ):
        await play(Run(story), ground)


@pytest_asyncio.fixture(loop_scope="module")
async def stopped(ground: Ground) -> AsyncIterator[Stage]:
    """A rollout was cancelled, and everything is true."""
    async with staged(ground, seed_of([GATEWAYS])) as stage:
        await stage.types("U0ONCALLA1", "cancel Gateways421 because it bricks")
        card = stage.with_button("proposal.confirm", user="U0ONCALLA1")
        assert card is not None
        await stage.clicks("U0ONCALLA1", card, "proposal.confirm")
        assert await untruths(stage) == []
        yield stage


async def test_a_second_effect_is_noticed(stopped: Stage) -> None:
    stopped.fleet.history *= 2
    [said] = await untruths(stopped)
    assert "took effect 2 times" in said


async def test_a_last_line_that_the_fleet_contradicts_is_noticed(stopped: Stage) -> None:
    stopped.fleet.rollouts = type(stopped.fleet).from_seed(seed_of([GATEWAYS]), now=stopped.fleet.now).rollouts
    assert any("it says that it stopped" in said for said in await untruths(stopped))


async def test_a_last_line_that_nobody_sees_is_noticed(stopped: Stage) -> None:
    stopped.slack.workspace.remove(stopped.thread()[-2])
    assert any("the last line stands 0 times" in said for said in await untruths(stopped))


@pytest.mark.parametrize(
    ("want", "value", "is_so"),
    [(5, 5, True), ("more than 5", 5, False), ("less than 5", 4, True), ("2 to 4", 5, False), (None, 0, False)],
)
async def test_numbers_are_compared_as_they_are_written(want: object, value: int, is_so: bool) -> None:
    assert fits(want, value) is is_so
