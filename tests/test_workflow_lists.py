"""Lists of what was found: the order, the age of what is said, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.model import Firmware, JobKind, JobState
from bot.ports import FoundFirmware, FoundJob
from bot.workflow.lists import FETCHED, SHOWN, ago, firmware_lines, job_lines
from tests.values import AT, job

HERE, THERE = "prod-shanghai", "prod-beijing"
NOW = AT + timedelta(seconds=45)
SEEN = AT + timedelta(seconds=5)
MISSING = (
    "A rollout that began lately, or whose firmware is not among the newest, may be missing here: "
    "/ota status <job> asks the cloud itself."
)


def found_job(
    job_id: str = "7glPHmaDYLAYMD1HHutT02", *, minutes: float | None = 14, instance: str = HERE, **bent: object
) -> FoundJob:
    created_at = AT - timedelta(minutes=minutes) if minutes is not None else None
    made = replace(job(job_id=job_id, src_versions=(), created_at=created_at), **bent)  # type: ignore[arg-type]
    return FoundJob(instance, made, SEEN)


def found_firmware(firmware_id: str = "fw-421", *, minutes: float = 60, **bent: object) -> FoundFirmware:
    made = Firmware(firmware_id, "gateway-fw", "a1Gateway01", "4.2.1", "4.2.0", AT - timedelta(minutes=minutes))
    return FoundFirmware(HERE, replace(made, **bent), SEEN)  # type: ignore[arg-type]


def names(lines: tuple[str, ...]) -> list[str]:
    return [line.split(" on ")[0] for line in lines if " on prod-" in line and not line.startswith(("Nothing", "A "))]


def test_a_line_holds_all_that_is_needed_to_act_on_a_rollout() -> None:
    over = found_job("over", state=JobState.CANCELED, kind=JobKind.DYNAMIC, minutes=None, firmware="", dest_version="")
    notice = job_lines([found_job(), over], now=NOW)
    assert notice.text == "1 running rollout, 1 over, as of 03:12:05 UTC (40 s ago):"
    assert notice.lines == (
        "7glPHmaDYLAYMD1HHutT02 on prod-shanghai: in progress · gateway-fw · 4.2.1 · product a1Gateway01 · "
        "static rollout · created 2026-03-01 02:58 UTC",
        "over on prod-shanghai: canceled · product a1Gateway01 · dynamic rollout",
        MISSING,
    )


def test_running_rollouts_come_first_and_then_the_newest() -> None:
    found = [
        found_job("over", minutes=1, state=JobState.COMPLETED),
        found_job("unknown", minutes=None),
        found_job("old", minutes=9),
        found_job("planned", minutes=5, state=JobState.PLANNED),
        found_job("new", minutes=2),
    ]
    assert names(job_lines(found, now=NOW).lines) == ["new", "planned", "old", "unknown", "over"]


@pytest.mark.parametrize("word", ["A1GATEWAY02", "fw-9", "sensor-fw", "5.0.0", "J2", "5.0", "sensor"])
def test_a_word_narrows_the_rollouts_down(word: str) -> None:
    other = found_job("j2", product="a1Gateway02", firmware_id="fw-9", firmware="sensor-fw", dest_version="5.0.0")
    assert names(job_lines([found_job(), other], word=word, now=NOW).lines) == ["j2"]


def test_a_name_that_is_meant_exactly_does_not_take_in_longer_ones() -> None:
    found = [found_job("j1", dest_version="4.2.1"), found_job("j2", dest_version="4.2.10")]
    assert names(job_lines(found, word="4.2.1", now=NOW).lines) == ["j1"]
    assert names(job_lines(found, word="4.2", now=NOW).lines) == ["j1", "j2"]


def test_a_word_that_names_nothing_gets_the_nearest_one_that_does() -> None:
    notice = job_lines([found_job()], word="a1gatway01", now=NOW)
    assert notice.text == "I know of no rollout of a1gatway01, as of 03:12:05 UTC (40 s ago)."
    assert notice.lines == ("Did you mean a1Gateway01?", MISSING)
    assert job_lines([found_job()], word="zzz", now=NOW).lines == (MISSING,)


def test_what_does_not_fit_is_counted() -> None:
    found = [found_job(f"j{n:03}", minutes=n) for n in range(SHOWN + 3)]
    notice = job_lines(found, now=NOW)
    assert notice.text.startswith("23 running rollouts, 0 over, as of")
    assert names(notice.lines) == [f"j{n:03}" for n in range(SHOWN)]
    assert "… and 3 more: name a product, a firmware or a version to see fewer." in notice.lines
    assert not [line for line in job_lines(found[:SHOWN], now=NOW).lines if line.startswith("…")]
    many = [found_job(f"j{n:03}") for n in range(FETCHED)]
    assert any(line.startswith("… and at least 480 more") for line in job_lines(many, now=NOW).lines)


def test_before_the_first_look_it_says_that_nothing_is_known_yet() -> None:
    for notice, what in ((job_lines([], now=NOW), "rollout"), (firmware_lines([], now=NOW), "firmware")):
        assert notice.text == f"I know of no {what} yet."
        assert "the log says what the cloud answers" in notice.lines[0]
    assert job_lines([], now=NOW, instances=[HERE]).text == "I know of no rollout on prod-shanghai yet."


def test_where_packages_were_seen_and_no_rollout_it_says_so_as_of_that_look() -> None:
    notice = job_lines([], now=NOW, firmware=[found_firmware()], instances=[HERE])
    assert notice.text == "I know of no rollout, as of 03:12:05 UTC (40 s ago)."
    assert firmware_lines([], now=NOW, jobs=[found_job()]).text.startswith("I know of no firmware, as of")


def test_an_instance_that_could_not_be_looked_at_is_named_with_since_when() -> None:
    late = replace(found_job("late", instance=THERE), seen_at=AT - timedelta(days=1))
    notice = job_lines([found_job(), late], now=NOW, instances=[HERE, THERE, "prod-us"])
    assert "as of 03:12:05 UTC (40 s ago)" in notice.text
    assert notice.lines[2:4] == (
        "prod-beijing could not be looked at since 2026-02-28 03:12:00 UTC (24 h ago): "
        "what stands here of it may be over.",
        "Nothing is known of prod-us yet.",
    )
    alone = job_lines([late], now=NOW)
    assert "as of 2026-02-28 03:12:00 UTC (24 h ago)" in alone.text


def test_five_minutes_are_not_late_and_more_are() -> None:
    for seconds, expected in ((300, 0), (301, 1)):
        lines = job_lines([found_job()], now=SEEN + timedelta(seconds=seconds)).lines
        assert sum("could not be looked at" in line for line in lines) == expected


def test_a_rollout_that_ran_when_it_was_last_seen_long_before_the_others_says_when_that_was() -> None:
    earlier = AT - timedelta(hours=3)
    ran = replace(found_job("ran"), seen_at=earlier)
    over = replace(found_job("over", state=JobState.COMPLETED), seen_at=earlier)
    lines = job_lines([found_job("runs"), ran, over], now=NOW).lines
    assert [line.split(" on ")[0] for line in lines if "last seen 00:12:00 UTC (3 h ago)" in line] == ["ran"]


def test_firmware_is_listed_the_newest_first_with_what_runs() -> None:
    jobs = [found_job(f"j{n}", minutes=n) for n in range(5)]
    jobs += [found_job("over", state=JobState.COMPLETED), found_job("elsewhere", instance=THERE)]
    found = [found_firmware("fw-420", minutes=90, dest_version="4.2.0", src_version=""), found_firmware()]
    notice = firmware_lines(found, jobs=jobs, now=NOW, instances=[HERE])
    assert notice.text == "2 update packages, as of 03:12:05 UTC (40 s ago):"
    assert notice.lines == (
        "fw-421 on prod-shanghai: gateway-fw · 4.2.0 → 4.2.1 · product a1Gateway01 · created 2026-03-01 02:12 UTC · "
        "running: j0, j1, j2 and 2 more",
        "fw-420 on prod-shanghai: gateway-fw · 4.2.0 · product a1Gateway01 · created 2026-03-01 01:42 UTC · "
        "nothing runs",
        MISSING,
    )


def test_a_word_narrows_firmware_down() -> None:
    found = [found_firmware(), found_firmware("fw-9", product="a1Sensor02")]
    assert names(firmware_lines(found, word="A1SENSOR02", now=NOW).lines) == ["fw-9"]
    notice = firmware_lines(found, word="a1sensor2", now=NOW)
    assert notice.lines[0] == "Did you mean a1Sensor02?"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-9, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7_199, "119 min ago"),
        (7_200, "2 h ago"),
        (172_799, "47 h ago"),
        (172_800, "2 days ago"),
    ],
)
def test_an_age_is_told_in_the_unit_that_people_use(seconds: float, words: str) -> None:
    assert ago(AT, AT + timedelta(seconds=seconds)) == words
