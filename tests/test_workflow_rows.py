"""The CSV of devices: any reader gets the cells back, and no spreadsheet runs one."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.model import Task, TaskState
from bot.workflow.rows import BEGINNING, CELL_LENGTH, HEADER, csv_lines, harmless, task_row
from tests.values import AT

TASK = Task(
    "t1",
    "gw-sh-00042",
    TaskState.FAILED,
    "J1",
    progress="45",
    detail="flash write, block 7",
    src_version="4.2.0",
    dest_version="4.2.1",
    created_at=AT,
    changed_at=AT + timedelta(seconds=9),
)
RUN = ["=1+1", "\t=1", "\r\n@x", "-\ud800", '"', ",", "'", "\u202e=x", " =1"]
HOSTILE = st.text(max_size=60) | st.sampled_from(RUN)


def read(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))


def test_a_row_says_what_is_known_of_a_device_and_as_of_when() -> None:
    assert dict(zip(HEADER, task_row(TASK, AT + timedelta(minutes=1)), strict=True)) == {
        "device": "gw-sh-00042",
        "state": "FAILED",
        "progress": "45",
        "reason": "flash write, block 7",
        "task id": "t1",
        "from version": "4.2.0",
        "to version": "4.2.1",
        "created": "2026-03-01T03:12:00Z",
        "changed": "2026-03-01T03:12:09Z",
        "as of": "2026-03-01T03:13:00Z",
    }


def test_a_time_that_is_not_known_is_left_empty() -> None:
    row = task_row(replace(TASK, created_at=None, changed_at=None), AT)
    assert (row[7], row[8]) == ("", "")


def test_lines_end_as_the_standard_says_and_every_cell_is_quoted_whatever_separates_them_where_it_is_read() -> None:
    assert csv_lines([("a", "b,c", 'd"e', "f;=g")]) == b'"a","b,c","d""e","f;=g"\r\n'


def test_excel_and_scripts_read_the_same_cells() -> None:
    content = BEGINNING + csv_lines([HEADER, task_row(replace(TASK, detail="升级失败"), AT)])
    [row] = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert (row["device"], row["reason"]) == ("gw-sh-00042", "升级失败")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n@", " =", "\u200b=", "＝", "'="])
def test_what_looks_like_a_formula_gets_an_apostrophe(start: str) -> None:
    assert harmless(f"{start}cmd|'/c calc'!A0").startswith("'")


def test_what_does_not_look_like_one_stays_as_it_is() -> None:
    assert harmless("gw-sh-00042: 4.2.0 = old") == "gw-sh-00042: 4.2.0 = old"


def test_a_cell_is_no_longer_than_spreadsheets_take() -> None:
    assert len(harmless("=" + "x" * 100_000)) == CELL_LENGTH + 1


@settings(deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), max_size=5))
def test_whatever_the_cells_hold_the_lines_are_lines_and_nothing_runs(rows: list[tuple[str, str, str]]) -> None:
    content = csv_lines(rows)
    assert content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r") == len(rows)
    assert read(content) == [[harmless(cell) for cell in row] for row in rows]
    for cell in (cell for row in read(content) for cell in row):
        assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in cell)
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
