"""A database of an older revision, upgraded: what an earlier version wrote is read back whole.

`vectors/rows_0001.json` holds rows of every state as the code of revision 0001 wrote them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, insert, text

from bot.errors import ConfigurationError
from bot.exchange import Choice, Click, Delivery, Post, PostKind
from bot.model import JobKind, Notice, OutcomeCode, Part, Preview, Step, StepKind, Target
from bot.proposals import CallAnswer, Proposal, State
from bot.storage.database import Database, open_database
from bot.storage.migrations import missing, revision, upgrade
from bot.storage.store import SqlStore
from bot.storage.tables import SCHEMA
from tests.conftest import Clock
from tests.old_rows import migrate_to, put_back, recorded
from tests.values import AT, REPLY_TO, STOPPABLE, TARGET, counts, delivery, job

ROWS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "vectors" / "rows_0001.json").read_text())
LONG = "J" * 128
JOBS = {
    "p-offered": "jobOffered",
    "p-approved": "jobApproved",
    "p-calling": "jobCalling",
    "p-unknown": "jobUnknown",
    "p-following": "jobFollowing",
    "p-finished": "jobFinished",
    "p-long": LONG,
}
FOLLOWED = counts(QUEUED=7)


def make_0001(connection: Connection, rows: dict[str, list[dict[str, Any]]]) -> None:
    migrate_to(connection, "0001")
    metadata = MetaData()
    metadata.reflect(connection)
    for table, those in rows.items():
        connection.execute(insert(metadata.tables[table]), [{name: cell(row[name]) for name in row} for row in those])


def cell(value: Any) -> Any:
    """A cell as the old version wrote it: bodies as compact JSON, times as times."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, str) and value.startswith("2026-"):
        return datetime.fromisoformat(value)
    return value


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[Database]:
    """A database of revision 0001 with rows of every state."""
    opened = open_database(empty_database_url)
    await opened.run(partial(make_0001, rows=ROWS))
    yield opened
    await opened.close()


@pytest.fixture
async def store(old: Database, clock: Clock) -> SqlStore:
    assert await upgrade(old)
    return SqlStore(old, clock=clock)


async def fetched(store: SqlStore, proposal_id: str) -> Proposal:
    found = await store.fetch_proposal(proposal_id)
    assert found is not None
    return found


def kind_of(proposal_id: str) -> JobKind:
    return JobKind.DYNAMIC if proposal_id == "p-calling" else JobKind.STATIC


async def test_the_rows_are_of_every_state(store: SqlStore) -> None:
    found = [await fetched(store, row["proposal_id"]) for row in ROWS["proposals"]]
    assert {proposal.state for proposal in found} == set(State)


async def test_the_one_batch_of_an_old_offer_is_the_one_part_of_its_preview(store: SqlStore) -> None:
    for proposal_id, job_id in JOBS.items():
        proposal = await fetched(store, proposal_id)
        target = Target("prod-shanghai", job_id)
        seen = counts(QUEUED=212, NOTIFIED=None, IN_PROGRESS=12, SUCCEEDED=146)
        part = Part(job(job_id=job_id, kind=kind_of(proposal_id)), seen, STOPPABLE)
        assert proposal.target == target
        assert proposal.offer is not None
        assert proposal.offer.preview == Preview(target, (part,))
        assert await store.fetch_proposal_of(proposal.offer.offer_id) == proposal


async def test_old_counts_stand_under_their_batch(store: SqlStore) -> None:
    offered, following = await fetched(store, "p-offered"), await fetched(store, "p-following")
    assert (offered.baseline, offered.progress) == ({}, {})
    assert following.baseline == {"jobFollowing": FOLLOWED}
    assert following.progress == {"jobFollowing": counts(QUEUED=3, CANCELED=4)}
    assert (await fetched(store, "p-calling")).baseline == {"jobCalling": counts(QUEUED=7, CONFIRM=None)}
    assert following.called is not None
    assert following.called.touches == STOPPABLE
    received = await fetched(store, "p-received")
    assert (received.offer, received.baseline, received.progress) == (None, {}, {})


async def test_an_old_call_goes_on_with_the_steps_that_it_was_made_of(store: SqlStore) -> None:
    halting = await fetched(store, "p-calling")
    target = Target("prod-shanghai", "jobCalling", "fw-421", "a1Gateway01")
    assert halting.steps == (
        Step(StepKind.CANCEL_STRATEGY, target),
        Step(StepKind.CANCEL_TASKS, target, STOPPABLE),
    )
    assert halting.steps_done == 1
    assert [(call.step, call.answer) for call in halting.calls] == [(0, CallAnswer.ACCEPTED), (1, None)]
    lost = await fetched(store, "p-unknown")
    assert [step.kind for step in lost.steps] == [StepKind.CANCEL_TASKS]
    assert lost.current_call is not None
    assert lost.current_call.intent.step == Step(
        StepKind.CANCEL_TASKS, Target("prod-shanghai", "jobUnknown"), STOPPABLE
    )
    assert (await fetched(store, "p-approved")).steps == ()


async def test_an_old_follow_goes_on_since_its_call(store: SqlStore) -> None:
    following = await fetched(store, "p-following")
    assert (following.followed_from, following.follow_until) == (AT, AT + timedelta(minutes=15))
    assert (await fetched(store, "p-calling")).followed_from is None


async def test_what_was_over_is_still_known_with_how_it_ended(store: SqlStore) -> None:
    finished, denied = await fetched(store, "p-finished"), await fetched(store, "p-denied")
    assert finished.outcome is not None
    assert finished.outcome.code is OutcomeCode.STOPPED
    assert finished.outcome.stopped == 7
    assert denied.outcome is not None
    assert denied.outcome.code is OutcomeCode.DENIED


async def test_old_proposals_are_found_by_their_batch_and_by_their_target(store: SqlStore) -> None:
    for proposal_id, job_id in JOBS.items():
        expected = [] if proposal_id == "p-finished" else [proposal_id]
        assert [each.proposal_id for each in await store.fetch_on_jobs("prod-shanghai", [job_id])] == expected
    for proposal_id in ("p-offered", "p-long"):
        pending = await store.fetch_pending("job.cancel", Target("prod-shanghai", JOBS[proposal_id]), frozenset())
        assert pending == await fetched(store, proposal_id)


async def test_old_deliveries_and_posts_are_read_back(store: SqlStore) -> None:
    clicked = Delivery("d-click", "click:1", REPLY_TO, AT, Click(Choice.CONFIRM, "1" * 32))
    assert {found for _, found in await store.claim_deliveries()} == {delivery(), clicked}
    owed = [each.post for each in await store.fetch_owed()]
    shown = Part(job(), counts(QUEUED=212, NOTIFIED=30, IN_PROGRESS=12, SUCCEEDED=146), STOPPABLE)
    assert owed == [
        Post(PostKind.CARD, "p-offered"),
        Post(PostKind.REPLY, "d1", Notice("here"), REPLY_TO, Preview(TARGET, (shown,))),
        Post(PostKind.LINE, "p-offered", Notice('he said "touches":')),
    ]


async def test_more_rows_than_one_batch_holds_are_all_rewritten(empty_database_url: str, clock: Clock) -> None:
    template = next(row for row in ROWS["proposals"] if row["proposal_id"] == "p-offered")
    many = [
        {
            **template,
            "proposal_id": f"p{n:04}",
            "params": f"{n}",
            "body": {**template["body"], "proposal_id": f"p{n:04}"},
        }
        for n in range(1_001)
    ]
    database = open_database(empty_database_url)
    await database.run(partial(make_0001, rows={"proposals": many}))
    await upgrade(database)
    rewritten = "SELECT count(*) FROM proposals WHERE body LIKE '%\"parts\":%'"
    assert await database.read(lambda connection: connection.scalar(text(rewritten))) == 1_001
    assert await database.read(lambda connection: connection.scalar(text("SELECT count(*) FROM touched_jobs"))) == 1_001
    for n in (0, 499, 500, 1_000):
        assert (await fetched(SqlStore(database, clock=clock), f"p{n:04}")).proposal_id == f"p{n:04}"
    await database.close()


async def test_a_database_between_two_releases_is_upgraded_too(empty_database_url: str) -> None:
    """No release had revision 0002; a start that was stopped between two of its steps never left it either."""
    slots = [row for table, row in recorded("0003")["cancel: waiting"] if table == "slots"]

    def make_0002(connection: Connection) -> None:
        put_back(connection, "0001", "cancel: waiting")
        migrate_to(connection, "0002")
        names = ", ".join(slots[0])
        values = ", ".join(f":{name}" for name in slots[0])
        rows = [{**row, "is_held": bool(row["is_held"])} for row in slots]
        connection.execute(text(f"INSERT INTO slots ({names}) VALUES ({values})"), rows)

    database = open_database(empty_database_url)
    await database.run(make_0002)
    assert await upgrade(database)
    for table, there in (("slots", len(slots)), ("proposals", 2), ("touched_jobs", 2)):
        counted = f"SELECT count(*) FROM {table}"
        assert await database.read(lambda connection, of=counted: connection.scalar(text(of))) == there
    await database.close()


async def test_what_a_schema_lacks_is_said_in_a_sentence(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    assert "the database is empty: run `otabrake db upgrade`" in str(await missing(database))
    await database.run(lambda connection: migrate_to(connection, "0003"))
    assert f"the database is at revision 0003, this version needs {SCHEMA}" in str(await missing(database))
    await upgrade(database)
    assert await missing(database) is None
    await database.close()


@pytest.mark.parametrize("newer", ["0999", "1f2e3d4c5b6a"])
async def test_a_database_of_a_newer_version_is_left_alone(empty_database_url: str, newer: str) -> None:
    database = open_database(empty_database_url)
    await upgrade(database)
    mark = text("UPDATE alembic_version SET version_num = :newer")
    await database.run(lambda connection: connection.execute(mark, {"newer": newer}) and None)
    assert f"knows none after {SCHEMA}" in str(await missing(database))
    with pytest.raises(ConfigurationError, match=f"at revision {newer}.*Nothing was changed"):
        await upgrade(database)
    assert await database.read(revision) == newer
    await database.close()
