"""Spans by a clock that may be set back: none of them becomes a day."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from bot.model import CLOCKS_DIFFER
from bot.workflow.means import Elapsed, has_passed
from tests.conftest import Clock
from tests.values import offer

DAY = 86_400


@pytest.mark.parametrize(
    ("jump", "is_over"),
    [
        (0, False),
        (59, False),
        (60, True),
        (DAY, True),
        (-30, False),
        (-CLOCKS_DIFFER.total_seconds() - 1, True),
        (-DAY, True),
    ],
)
def test_a_span_is_over_when_it_has_passed_or_the_clock_was_set_back(
    clock: Clock, jump: float, *, is_over: bool
) -> None:
    means: Any = SimpleNamespace(clock=clock)
    since = clock()
    clock.pass_by(jump)
    assert has_passed(means, since, 60) is is_over


def test_what_has_elapsed_is_not_taken_back_by_a_clock_that_is(clock: Clock) -> None:
    elapsed = Elapsed(clock)
    seen = []
    for step in (10, -DAY, 5, 0, DAY):
        clock.pass_by(step)
        seen.append(elapsed())
    assert seen == [10, 10, 15, 15, 15 + DAY]


def test_an_offer_that_was_made_before_the_clock_was_set_back_has_expired() -> None:
    made = offer()
    assert not made.has_expired(made.made_at)
    assert not made.has_expired(made.made_at - CLOCKS_DIFFER)
    assert made.has_expired(made.made_at - CLOCKS_DIFFER - timedelta(seconds=1))
    assert made.has_expired(made.expires_at)
