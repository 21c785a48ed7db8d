"""Slack's pace: a burst, then a message a second in each channel; a 429 closes what it was about."""

from __future__ import annotations

import pytest

from bot.slack.pace import BURST, LONGEST_SECONDS, Pace


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pace(time: Time) -> Pace:
    return Pace(seconds=lambda: time.now, sleep=time.sleep)


async def test_a_burst_goes_at_once_and_then_one_a_second(pace: Pace, time: Time) -> None:
    for _ in range(BURST + 3):
        await pace.turn("C1")
    assert time.slept == [1.0, 1.0, 1.0]


async def test_a_quiet_channel_may_burst_again(pace: Pace, time: Time) -> None:
    for _ in range(BURST):
        await pace.turn("C1")
    time.now += BURST
    for _ in range(BURST):
        await pace.turn("C1")
    assert time.slept == []


async def test_channels_do_not_wait_for_each_other(pace: Pace, time: Time) -> None:
    for number in range(BURST * 4):
        await pace.turn(f"C{number % 4}")
    assert time.slept == []


async def test_a_pause_that_slack_asked_for_holds_for_that_channel_alone(pace: Pace, time: Time) -> None:
    pace.close("C1", 30)
    await pace.turn("C2")
    assert time.slept == []
    await pace.turn("C1")
    assert time.slept == [30]
    await pace.turn("C1")
    assert time.slept == [30]


async def test_a_shorter_pause_does_not_end_a_longer_one_and_none_is_endless(pace: Pace, time: Time) -> None:
    pace.close("C1", 1_000_000)
    pace.close("C1", 1)
    await pace.turn("C1")
    assert time.slept == [LONGEST_SECONDS]


async def test_quiet_channels_are_forgotten(pace: Pace, time: Time) -> None:
    for number in range(5000):
        await pace.turn(f"C{number}")
        time.now += 1
    assert len(pace._full_at) <= 1001
