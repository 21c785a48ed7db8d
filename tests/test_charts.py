"""Charts: what is worth drawing, the picture itself, and a child process that never outlives its use."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from bot.charts import MAX_STRETCHES, ChartFailed, Curve, _order, draw, has_curve
from bot.painting import COLOURS, HEIGHT, WIDTH, picture

START = datetime(2026, 11, 24, 3, 12, tzinfo=UTC)


def curve(count: int = 20, *, title: str = "Devices by state", **series: tuple[int | None, ...]) -> Curve:
    falling = tuple(1_000_000 - 1_000_000 * at // max(1, count - 1) for at in range(count))
    rising = tuple(1_000_000 - value for value in falling)
    return Curve(
        title=title,
        times=tuple(START + timedelta(seconds=15 * at) for at in range(count)),
        series=series or {"Queued": falling, "Canceled": rising},
        marks=((START + timedelta(seconds=20), "confirmed"), (START + timedelta(seconds=21), "accepted")),
    )


def colours(png: bytes, *, left: float = 0.0, right: float = 1.0) -> set[str]:
    """The colours between two parts of the width."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (WIDTH, HEIGHT)
    part = image.crop((int(left * WIDTH), 0, int(right * WIDTH), HEIGHT))
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in part.getcolors(WIDTH * HEIGHT)}  # type: ignore[misc, str-format, union-attr]


def order(series: dict[str, list[int | None]], *, title: str = "", marks: object = ()) -> dict[str, object]:
    longest = max((len(values) for values in series.values()), default=0)
    times = [START.timestamp() + 15 * at for at in range(longest)]
    return {"title": title, "times": times, "series": list(series.items()), "marks": marks}


@pytest.mark.parametrize(
    ("values", "is_one"),
    [
        ((3, 2, 1), True),
        ((3, None, 2, 1), True),
        ((3, 3, 3), False),
        ((3, 1), False),
        ((3, None, None, 1), False),
        ((None, None, None), False),
        ((3, 0, 3), True),
        ((), False),
    ],
)
def test_a_curve_needs_three_known_moments_and_a_change(values: tuple[int | None, ...], is_one: bool) -> None:
    assert has_curve(curve(len(values), Queued=values)) is is_one


def test_moments_that_are_the_same_count_once() -> None:
    assert not has_curve(Curve(title="", times=(START, START, START), series={"Queued": (3, 2, 1)}))


def test_a_curve_that_makes_no_sense_is_not_made() -> None:
    for times, values in (((START,), (1, 2)), ((datetime(2026, 1, 1),), (1,)), ((START, START - timedelta(1)), (1, 2))):  # noqa: DTZ001
        with pytest.raises(ValueError, match="moment"):
            Curve(title="", times=times, series={"Queued": values})


async def test_the_picture_shows_each_series_in_its_colour() -> None:
    png = await draw(curve())
    assert {COLOURS[0], COLOURS[1]} <= colours(png, left=0.15, right=0.7)
    assert png == await draw(curve())


async def test_a_long_curve_is_thinned_and_keeps_what_stands_out() -> None:
    count = 10_000
    spike = tuple(900 if at == 5_003 else 1 for at in range(count))
    gap = tuple(None if 3_000 <= at < 4_000 else 5 for at in range(count))
    long = curve(count, Failed=spike, Queued=gap)
    sent = _order(long)
    kept = sent["series"]
    assert len(sent["times"]) <= 7 * MAX_STRETCHES  # type: ignore[arg-type]
    assert (max(kept[0][1]), None in kept[1][1]) == (900, True)  # type: ignore[index]
    assert COLOURS[0] in colours(await draw(long))


def test_unknown_is_a_gap_and_not_a_zero() -> None:
    known = picture(order({"Queued": [9, 9, 9, 9, 9, 9, 9]}))
    gap = picture(order({"Queued": [9, 9, None, None, None, 9, 9]}))
    assert COLOURS[0] in colours(known, left=0.38, right=0.45)
    assert COLOURS[0] not in colours(gap, left=0.38, right=0.45)
    assert COLOURS[0] in colours(gap, left=0.15, right=0.25)


def test_a_value_between_two_gaps_is_a_dot() -> None:
    assert COLOURS[0] in colours(
        picture(order({"Queued": [None, None, None, 9, None, None, None]})), left=0.35, right=0.5
    )


TITLES = ("", r"$\frac{a}{b}$ $x \alpha_{", "<b>&amp;</b> \u202eabc", "批次 网关固件 🚨", "W" * 80)
SERIES: tuple[dict[str, list[int | None]], ...] = (
    {},
    {"Queued": []},
    {"Queued": [7]},
    {"Queued": [None] * 9},
    {"Queued": [0, 0, 0]},
    {"A": [1, None], "B": [1, 2]},
    {f"{TITLES[1]}{at}": [at, 10**12] for at in range(20)},
)


@pytest.mark.parametrize(
    ("series", "title"), [*((series, "plain") for series in SERIES), *((SERIES[-2], title) for title in TITLES)]
)
def test_nothing_in_an_order_stops_the_painter(series: dict[str, list[int | None]], title: str) -> None:
    marks = [[START.timestamp() + at, title[:16]] for at in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the child: where no font has a sign, a box stands for it
        png = picture(order(series, title=title, marks=marks))
    assert "#ffffff" in colours(png)


def test_dollar_signs_are_not_markup() -> None:
    plain = picture(order({"Queued": [3, 2, 1]}, title="$x$"))
    assert plain != picture(order({"Queued": [3, 2, 1]}, title="x"))


@pytest.mark.parametrize("title", [r"批次 $\frac{", "\x00\ud83d\n" + "x" * 5_000])
async def test_a_hostile_title_is_drawn_by_the_child(title: str) -> None:
    assert "#ffffff" in colours(await draw(curve(3, title=title)))


async def test_a_home_that_cannot_be_written_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert COLOURS[0] in colours(await draw(curve(3)))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program in the place of Python; it leaves its process id beside it."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/wip; mv {tmp_path}/wip {tmp_path}/pid\nexec sleep 50\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def become(program: Path, body: str) -> None:
    program.write_text(f"#!/bin/sh\n{body}\n")


def is_gone(program: Path) -> bool:
    try:
        os.kill(int(program.with_name("pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_child_that_takes_too_long_is_killed_and_reaped(pretend: Path) -> None:
    with pytest.raises(ChartFailed, match=r"longer than 0\.3 seconds"):
        await draw(curve(3), seconds=0.3)
    assert is_gone(pretend)


async def test_a_cancelled_drawing_leaves_no_child_behind(pretend: Path) -> None:
    drawing = asyncio.create_task(draw(curve(3)))
    while not pretend.with_name("pid").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert is_gone(pretend)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("yes complaint | head -c 300000 >&2; echo no such module >&2; exit 3", "status 3 .*no such module"),
        ("echo not a picture; exit 0", "without a picture"),
        ("exit 1", "silently"),
        ("kill -9 $$", "status -9"),
    ],
)
async def test_a_child_that_fails_is_told_in_one_short_sentence(pretend: Path, body: str, why: str) -> None:
    become(pretend, body)
    with pytest.raises(ChartFailed, match=why) as failed:
        await draw(curve(3))
    assert len(str(failed.value)) < 400


async def test_a_child_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ChartFailed, match="could not be started"):
        await draw(curve(3))


async def test_the_child_is_given_no_secret(pretend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    become(pretend, f"env > {pretend.parent}/seen")
    with pytest.raises(ChartFailed):
        await draw(curve(3))
    seen = pretend.with_name("seen").read_text()
    assert "PYTHONPATH" in seen
    assert "secret" not in seen


def test_the_bot_never_loads_the_plotting_library() -> None:
    code = "import sys, bot.cli, bot.wiring, bot.charts; print({'matplotlib', 'numpy', 'PIL'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
