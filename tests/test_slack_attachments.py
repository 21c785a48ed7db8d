"""Files are made when they are sent, whole or not at all, and a file that does not come is told of."""

from __future__ import annotations

import asyncio
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.charts import ChartFailed
from bot.errors import CloudLost, CloudRefused, CloudThrottled
from bot.exchange import File, FileKind, Post, PostKind, ReplyTo
from bot.model import Place, Target, TaskState
from bot.ports import MOST_LISTED, TASKS_A_PAGE, Purpose
from bot.proposals import State
from bot.sandbox.slack_api import DEFAULT_SCOPES
from bot.slack.attachments import UPLOAD_ATTEMPTS, list_comment
from bot.slack.listing import PAGE_ATTEMPTS, Listed, Lister
from bot.workflow.rows import HEADER
from tests.conftest import Clock
from tests.desk import PNG, Desk, Listing, open_desk, titles
from tests.values import AT, TARGET, counts, offer, preview, proposal

JOB = TARGET.job
TASKS = File(FileKind.TASKS, Target("prod-shanghai", JOB))
MOVING = replace(TASKS, kind=FileKind.MOVING, states=(TaskState.IN_PROGRESS, TaskState.QUEUED))
CURVE = replace(TASKS, kind=FileKind.CURVE, since=AT)
TO = ReplyTo("U0ONCALLA1", Place("C0INCIDENT"))
FOR_ONE = Post(PostKind.FILE, "d1", reply_to=TO, file=TASKS)
FOR_ALL = Post(PostKind.FILE, "p1", file=MOVING)
PICTURE = Post(PostKind.FILE, "p1", file=CURVE)
FOLLOWED = proposal(
    state=State.FOLLOWING,
    offer=offer(),
    approved_at=AT,
    called=preview(counts=counts(QUEUED=200)),
    followed_from=AT + timedelta(seconds=2),
)
STAND = "The numbers that were told stand."


@pytest.fixture
async def desk(clock: Clock, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    async with open_desk(clock, tmp_path, scopes=getattr(request, "param", DEFAULT_SCOPES)) as opened:
        await opened.keep(FOLLOWED)
        opened.listing.tasks = {TaskState.QUEUED: 3, TaskState.IN_PROGRESS: 2, TaskState.FAILED: 1}
        opened.seen.counts = [counts(at=AT + timedelta(seconds=at), QUEUED=200 - at) for at in (5, 6, 7)]
        yield opened


# For one person.


async def test_a_list_goes_into_a_direct_message_and_the_asker_is_told_where_it_is(desk: Desk) -> None:
    await desk.owe(FOR_ONE)
    [message] = desk.direct()
    assert message.text == f"Devices of rollout {JOB}: 6 devices as of 03:12:00 UTC."
    assert (message.files[0].name, message.files[0].mimetype) == (f"tasks-{JOB}-20260301T031200Z.csv", "text/csv")
    assert desk.told() == ["The file is in your direct messages with me."]


async def test_the_list_has_every_device_with_its_state_and_nothing_that_a_spreadsheet_runs(desk: Desk) -> None:
    await desk.owe(FOR_ONE)
    rows = desk.rows(desk.direct()[0])
    assert tuple(rows[0]) == HEADER
    assert [row["device"] for row in rows[:4]] == ["gw-queued-0", "gw-queued-1", "gw-queued-2", "gw-in_progress-0"]
    assert (rows[0]["state"], rows[0]["reason"], rows[0]["as of"]) == ("QUEUED", "'=cmd", "2026-03-01T03:12:00Z")


async def test_a_list_of_some_states_is_read_state_by_state_as_an_export(desk: Desk) -> None:
    await desk.owe(replace(FOR_ONE, file=replace(TASKS, states=(TaskState.FAILED, TaskState.QUEUED))))
    assert desk.listing.asked == [(TaskState.QUEUED, 1, Purpose.EXPORT), (TaskState.FAILED, 1, Purpose.EXPORT)]
    assert desk.direct()[0].text.startswith(f"Devices (queued, failed) of rollout {JOB}: 4 devices")


async def test_a_list_of_nobody_is_no_file_but_a_sentence(desk: Desk) -> None:
    await desk.owe(replace(FOR_ONE, file=replace(TASKS, states=(TaskState.NOTIFIED,))))
    assert desk.direct() == []
    assert desk.told() == [f"Devices (notified) of rollout {JOB}: none as of 03:12:00 UTC, so no file."]


# For all.


async def test_the_devices_that_still_move_stand_in_the_thread_in_the_order_of_movement(desk: Desk) -> None:
    await desk.owe(FOR_ALL)
    _, message = desk.thread()
    assert message.text == (
        f"Devices that still move (queued, in progress) of rollout {JOB}: 5 devices as of 03:12:00 UTC."
    )
    assert [row["state"] for row in desk.rows(message)] == ["QUEUED"] * 3 + ["IN_PROGRESS"] * 2


async def test_the_curve_stands_in_the_thread_with_words_for_those_who_cannot_see_it(desk: Desk) -> None:
    await desk.owe(PICTURE)
    _, message = desk.thread()
    [file] = message.files
    assert (file.title, file.mimetype) == (f"Devices of rollout {JOB} by state", "image/png")
    assert file.alt_text == f"Devices of rollout {JOB} by state. Before the call → now: queued 200 → 193"
    assert message.text == f"Devices of rollout {JOB} by state, as of 03:12:07 UTC."
    assert desk.content(message) == PNG


@pytest.mark.parametrize("seconds", [0, 5])
async def test_the_curve_begins_just_before_the_call_and_marks_what_was_done(desk: Desk, seconds: int) -> None:
    desk.seen.counts[0] = counts(at=AT + timedelta(seconds=seconds), QUEUED=195)
    await desk.owe(PICTURE)
    [curve] = desk.drawn
    assert curve.series["Queued"] == (200, 195, 194, 193)
    assert curve.times[0] == AT
    assert curve.marks == ((AT, "confirmed"), (AT + timedelta(seconds=2), "accepted"))
    assert desk.seen.since == AT


async def test_readings_of_several_processes_are_drawn_in_the_order_of_time(desk: Desk) -> None:
    desk.seen.counts.reverse()
    await desk.owe(PICTURE)
    assert desk.drawn[0].series["Queued"] == (200, 195, 194, 193)


async def test_a_number_that_is_not_known_is_a_gap_in_the_curve(desk: Desk) -> None:
    desk.seen.counts[1] = counts(at=AT + timedelta(seconds=6), QUEUED=None)
    await desk.owe(PICTURE)
    assert desk.drawn[0].series["Queued"] == (200, 195, None, 193)


@pytest.mark.parametrize("seen", [[], [counts(at=AT + timedelta(seconds=5), QUEUED=200)] * 5])
async def test_where_there_is_no_curve_to_see_nothing_is_posted(desk: Desk, seen: list[Any]) -> None:
    desk.seen.counts = seen
    await desk.owe(Post(PostKind.CARD, "p1"), PICTURE)
    assert (desk.lines(), desk.drawn) == ([], [])


async def test_a_curve_that_cannot_be_drawn_is_told_of_and_later_posts_follow(desk: Desk) -> None:
    desk.picture = ChartFailed("Drawing took longer than 20 seconds.")
    await desk.owe(PICTURE, FOR_ALL)
    assert f"The curve of rollout {JOB} could not be drawn: drawing took longer than 20 seconds." in desk.lines()
    assert len(titles(desk.thread())) == 1


# What Slack does not take.


@pytest.mark.parametrize("desk", [DEFAULT_SCOPES - {"files:write"}], indirect=True)
async def test_without_the_scope_for_files_thread_and_person_are_told_which_one_it_is(desk: Desk, clock: Clock) -> None:
    await desk.owe(FOR_ALL, FOR_ONE, PICTURE)
    why = "could not be sent: the app lacks the scope files:write; add it and install the app again."
    assert desk.lines() == [
        f"The list of devices of rollout {JOB} {why}\n{STAND}",
        f"The curve of rollout {JOB} {why}\n{STAND}",
    ]
    assert desk.told() == [f"The list of devices of rollout {JOB} {why}\n{STAND}"]
    assert clock.slept == []


@pytest.mark.parametrize("desk", [DEFAULT_SCOPES - {"im:write"}], indirect=True)
async def test_without_the_scope_for_direct_messages_nothing_is_read_in_vain(desk: Desk) -> None:
    await desk.owe(FOR_ONE)
    assert "the app lacks the scope im:write" in desk.told()[0]
    assert desk.listing.asked == []


async def test_where_uploads_are_switched_off_a_line_says_so(desk: Desk) -> None:
    desk.meets("files.getUploadURLExternal", error="file_uploads_disabled")
    await desk.owe(FOR_ALL)
    assert "the workspace has switched file uploads off" in desk.lines()[0]


async def test_an_upload_that_breaks_off_is_made_again_without_reading_the_list_again(desk: Desk, clock: Clock) -> None:
    desk.meets("upload", status=503, times=2)
    desk.meets("files.completeUploadExternal", error="ratelimited", status=429, retry_after=7)
    await desk.owe(FOR_ONE)
    assert len(desk.rows(desk.direct()[0])) == 6
    assert len(desk.listing.asked) == 1
    assert clock.slept == [2.0, 4.0, 7.0]


async def test_an_upload_that_breaks_off_for_ever_ends_in_a_sentence(desk: Desk, clock: Clock) -> None:
    desk.meets("upload", status=503, times=99)
    await desk.owe(FOR_ONE)
    assert desk.direct() == []
    assert desk.told() == [f"The list of devices of rollout {JOB} could not be sent: Slack answered 503.\n{STAND}"]
    assert len(clock.slept) == UPLOAD_ATTEMPTS - 1


# What the cloud does not tell.


async def test_a_page_that_cannot_be_read_now_is_read_again(desk: Desk, clock: Clock) -> None:
    desk.listing.errors = [CloudLost("timeout"), CloudThrottled("Throttling", "slow", retry_after_seconds=9)]
    await desk.owe(FOR_ONE)
    assert len(desk.rows(desk.direct()[0])) == 6
    assert clock.slept == [2.0, 9]


async def test_a_page_that_cannot_be_read_at_all_ends_the_list_and_no_half_one_is_sent(desk: Desk) -> None:
    desk.listing.tasks = {TaskState.QUEUED: 150}
    desk.listing.errors = [CloudLost("timeout")] * PAGE_ATTEMPTS
    await desk.owe(FOR_ALL)
    assert titles(desk.thread()) == []
    assert desk.lines()[0].startswith(
        f"The list of devices of rollout {JOB} could not be read to its end, so there is none: the cloud said timeout."
    )
    assert f"/ota tasks {JOB}" in desk.lines()[0]


async def test_a_refusal_of_the_cloud_is_not_asked_for_again(desk: Desk, clock: Clock) -> None:
    desk.listing.errors = [CloudRefused("Forbidden.RAM", "no")]
    await desk.owe(FOR_ONE)
    assert (len(desk.listing.asked), clock.slept, desk.direct()) == (1, [], [])
    assert "Reference: RID-1" in desk.told()[0]


async def test_a_file_that_breaks_for_a_reason_of_our_own_is_told_of_after_two_attempts(desk: Desk) -> None:
    desk.listing.errors = [ValueError("ours")] * 2
    await desk.owe(FOR_ALL)
    assert desk.lines() == ["A file belongs here that I could not send (ValueError)."]


# Size and turns.


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (Listed(1, 1, 1, AT, AT), "1 device as of 03:12:00 UTC."),
        (Listed(9, 9, 9, AT, AT + timedelta(minutes=3)), "9 devices as of 03:12:00 to 03:15:00 UTC."),
        (Listed(9, None, None, AT, AT), "9 devices as of 03:12:00 UTC."),
        (
            Listed(8, 9, 9, AT, AT),
            "8 devices as of 03:12:00 UTC. The cloud counted 9 of them: what moved while it was listed may be missing "
            "or stand twice.",
        ),
        (
            Listed(MOST_LISTED, 1_000_000, MOST_LISTED, AT, AT),
            "the first 100,000 of 1,000,000 devices as of 03:12:00 UTC. The cloud's API lists no more for one "
            f"question; of a single state it lists its own: /ota tasks {JOB} failed",
        ),
    ],
)
def test_a_list_says_how_many_as_of_when_and_what_is_not_in_it(listed: Listed, said: str) -> None:
    assert list_comment(TASKS, listed) == f"Devices of rollout {JOB}: {said}"


async def test_no_page_is_asked_for_beyond_those_that_the_cloud_lists(clock: Clock) -> None:
    listing = Listing(clock)
    listing.tasks, listing.a_page, listing.total = {TaskState.QUEUED: 1_100}, 1, 1_000_000
    with tempfile.TemporaryFile() as content:
        listed = await Lister(listing, clock, clock.sleep).write(TARGET, (), content)  # type: ignore[arg-type]
    assert len(listing.asked) == MOST_LISTED // TASKS_A_PAGE
    assert (listed.total, listed.listable) == (1_000_000, MOST_LISTED)


async def test_a_list_without_a_total_is_read_until_a_page_is_empty(clock: Clock) -> None:
    class Silent(Listing):
        async def fetch_task_page(self, *args: Any, **more: Any) -> Any:
            return replace(await super().fetch_task_page(*args, **more), total=None)

    listing = Silent(clock)
    listing.tasks = {TaskState.QUEUED: 250}
    with tempfile.TemporaryFile() as content:
        listed = await Lister(listing, clock, clock.sleep).write(TARGET, (), content)  # type: ignore[arg-type]
    assert (listed.rows, listed.total, len(listing.asked)) == (250, None, 4)


async def test_a_long_list_takes_no_more_memory_than_a_short_one(clock: Clock) -> None:
    peaks = []
    for devices in (2_000, 20_000):
        listing = Listing(clock)
        listing.tasks = {TaskState.QUEUED: devices}
        tracemalloc.start()
        with tempfile.TemporaryFile() as content:
            listed = await Lister(_Lean(listing, devices), clock, clock.sleep).write(TARGET, (), content)  # type: ignore[arg-type]
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert listed.rows == devices
    assert peaks[1] < 1_000_000
    assert peaks[1] < 1.5 * peaks[0]


class _Lean:
    """Pages of a long list, of which none is kept."""

    def __init__(self, listing: Listing, devices: int) -> None:
        self.listing = listing
        self.devices = devices

    async def fetch_task_page(self, target: Target, page: int, **_: Any) -> Any:
        self.listing.tasks = {TaskState.QUEUED: TASKS_A_PAGE}
        self.listing.asked.clear()
        found = await self.listing.fetch_task_page(target, 1)
        return replace(found, total=self.devices)


async def test_lists_that_people_ask_for_keep_no_thread_waiting_and_are_made_one_at_a_time(desk: Desk) -> None:
    desk.listing.gate = asyncio.Event()
    await desk.store.record(posts=[replace(FOR_ONE, lane=f"d{number}") for number in range(4)] + [FOR_ALL])
    draining = asyncio.create_task(desk.notifier.drain())
    for _ in range(2):
        await desk.listing.is_under_way.acquire()
    desk.listing.gate.set()
    await draining
    assert desk.listing.most_at_once == 2
    assert (len(desk.direct()), len(titles(desk.thread()))) == (4, 1)


async def test_no_temporary_file_is_left_whatever_happens(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    desk.meets("upload", status=503, times=99)
    await desk.owe(FOR_ONE)
    desk.slack.faults.clear()
    desk.listing.gate = asyncio.Event()
    await desk.store.record(posts=[FOR_ALL])
    async with desk.notifier:
        await desk.listing.is_under_way.acquire()
    assert list(folder.iterdir()) == []
    [left] = await desk.store.fetch_owed()
    assert left.post == FOR_ALL


async def test_a_disk_without_room_is_told_of(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    await desk.owe(FOR_ALL)
    assert desk.lines() == ["A file could not be made: the machine that I run on has no room, or fails."]
