"""The same flow as a DBOS workflow, on the same PostgreSQL, with the same signed calls to the same simulator.

A command is a workflow (persisted before it starts), the yes a message to it; calls are steps, and each change of state
is a transaction with its audit entry. Queues are not used (the flow needs none), workflows and steps are async, the
data source is the async one at READ COMMITTED, and both pools have room. Slack is not in it: in the long flow each
post is a step that says nothing, because a post must survive a crash as well. No policy, no budget, no pause between
the reads. https://docs.dbos.dev/python/reference/datasources
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbos import DBOS, AsyncSQLAlchemyDatasource, SetWorkflowID
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    update,
)

from bot.alibaba.cloud import Cloud
from bot.logs import get_log
from bot.model import Counts, Intent, Job, Receipt, Step, StepKind, Target, TaskState, Touch
from bot.ports import Purpose
from bot.wiring import load_policy, now, open_cloud
from tests.bench.engine import USER, take_few_calls
from tests.bench.flow_watch import run_flows
from tests.bench.machine import Broken, Json, answer_asks, be_a_child
from tests.bench.unlimited import INSTANCE, lift_limits, unlimited_settings
from tests.slots import OpenSlots

LONGEST_SECONDS = 60
TOUCHES = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})

_metadata = MetaData()
proposals = Table(
    "proposals",
    _metadata,
    Column("proposal_id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("job", String(64), nullable=False),
    Column("body", Text, nullable=False),
)
entries = Table(
    "entries",
    _metadata,
    Column("entry_id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("name", String(64), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("proposal_id", String(64), nullable=False),
    Column("body", Text, nullable=False),
)


class World:
    """What the workflows work with: a process has one, as it has one DBOS."""

    cloud: Cloud
    source: AsyncSQLAlchemyDatasource
    offered: dict[str, asyncio.Event]


async def _moved(state: str, name: str, actor: str = "otabrake", **facts: object) -> None:
    """One change of state with its audit entry, in one transaction of the workflow."""
    proposal_id = DBOS.workflow_id
    body = json.dumps(facts, default=str)

    async def unit() -> None:
        session = World.source.sql_session()
        if state == "received":
            row = {"proposal_id": proposal_id, "state": state, "job": facts["job"], "body": body}
            await session.execute(insert(proposals).values(row))
        else:
            of = proposals.c.proposal_id == proposal_id
            await session.execute(update(proposals).where(of).values(state=state, body=body))
        entry = {"at": datetime.now(UTC), "name": name, "actor": actor, "proposal_id": proposal_id, "body": body}
        await session.execute(insert(entries).values(entry))

    await World.source.run_tx_step_async({"name": name, "isolation_level": "READ COMMITTED"}, unit)


@DBOS.step()
async def look(job: str, purpose: Purpose) -> tuple[Job, Counts]:
    target = Target(INSTANCE, job)
    reads = World.cloud
    found, counts = await asyncio.gather(
        reads.fetch_job(target, purpose=purpose), reads.fetch_counts(target, tuple(TaskState), purpose=purpose)
    )
    return found, counts


@DBOS.step()
async def send(intent: Intent) -> Receipt:
    return await World.cloud.send(intent)


@DBOS.step()
async def count(job: str) -> Counts:
    return await World.cloud.fetch_counts(
        Target(INSTANCE, job), tuple(TaskState), purpose=Purpose.FOLLOW, in_order=True
    )


@DBOS.step()
async def post(kind: str) -> str:
    """Where the message stands."""
    return f"1.{kind}"


@DBOS.workflow()
async def stop_like_ours(job: str) -> None:
    """The flow with every look that the bot takes, and what it owes to Slack."""
    await _moved("received", "proposal:asked", USER, job=job)
    found, counts = await look(job, Purpose.PREVIEW)
    await _moved("offered", "proposal:offered", job=found.job_id, counts=counts)
    await _say("card", "buttons")
    World.offered[job].set()
    await _wait_for_yes()
    await _moved("approved", "proposal:confirmed", USER, job=job)
    await _say("card", "buttons")
    await look(job, Purpose.STOP)
    await _call(job)
    await _say("accepted", "card")
    await count(job)
    await _say("progress")
    await _end(job, await count(job))
    await _say("last line", "card", "buttons", "progress", "curve")


@DBOS.workflow()
async def stop_in_short(job: str) -> None:
    """The least that can be called the flow: persisted, a yes, the call, two reads, the result."""
    await _moved("received", "proposal:asked", USER, job=job)
    World.offered[job].set()
    await _wait_for_yes()
    await _call(job)
    await count(job)
    await _end(job, await count(job))


async def _say(*kinds: str) -> None:
    for kind in kinds:
        await post(kind)


async def _wait_for_yes() -> None:
    if await DBOS.recv_async(topic="yes", timeout_seconds=LONGEST_SECONDS) is None:
        raise Broken("nobody said yes")


async def _call(job: str) -> None:
    receipt = await send(await _prepared(job))
    await _moved("following", "call:accepted", job=job, request_id=receipt.request_id)


async def _end(job: str, counts: Counts) -> None:
    left = sum(counts.by_state[state] or 0 for state in (TaskState.QUEUED, TaskState.NOTIFIED, TaskState.CONFIRM))
    await _moved("finished", "proposal:ended", job=job, outcome="stopped" if left == 0 else "not_stopped")


async def _prepared(job: str) -> Intent:
    """The intent, on disk before it is sent: a call that is made again after a crash must have the same nonce."""
    step = Step(StepKind.CANCEL_TASKS, Target(INSTANCE, job), TOUCHES)
    proposal_id = DBOS.workflow_id

    async def unit() -> Intent:
        intent = World.cloud.prepare(step)
        session = World.source.sql_session()
        body = json.dumps({"job": job, "nonce": intent.nonce, "date": intent.date, "key": intent.key_id}, default=str)
        of = proposals.c.proposal_id == proposal_id
        await session.execute(update(proposals).where(of).values(state="calling", body=body))
        entry = {"at": now(), "name": "call:called", "actor": USER, "proposal_id": proposal_id, "body": body}
        await session.execute(insert(entries).values(entry))
        return intent

    options: Any = {"name": "call:called", "isolation_level": "READ COMMITTED"}
    return await World.source.run_tx_step_async(options, unit)


async def _stop(workflow: Callable[[str], Coroutine[Any, Any, None]], job: str) -> None:
    """What an engineer does, in this process."""
    workflow_id = secrets.token_hex(16)
    offered = World.offered[job] = asyncio.Event()
    with SetWorkflowID(workflow_id):
        handle = await DBOS.start_workflow_async(workflow, job)
    await offered.wait()
    await DBOS.send_async(workflow_id, "yes", topic="yes")
    await handle.get_result()
    del World.offered[job]


async def _main(options: Json) -> None:
    lift_limits()
    if options["is_thin"]:
        take_few_calls()
    settings = unlimited_settings(
        Path(options["folder"]),
        iot_url=options["iot_url"],
        slack_url="http://127.0.0.1:9",
        database_url=options["database_url"],
    )
    url = settings.database_url
    workflow = stop_in_short if options["is_short"] else stop_like_ours
    async with AsyncExitStack() as stack:
        World.offered = {}
        # The bot's own client with its own signing; the budget is never asked.
        instances = load_policy(settings.policies).instances
        opened = open_cloud(settings.environ, instances, slots=OpenSlots(), clock=now, log=get_log())
        World.cloud = await stack.enter_async_context(opened)
        engine = create_engine(url)
        _metadata.create_all(engine)
        engine.dispose()
        DBOS(
            config={
                "name": "otabrake-bench",
                "application_version": "1",
                "system_database_url": url,
                "sys_db_pool_size": options["pool"],
                "log_level": "ERROR",
            }
        )
        World.source = await AsyncSQLAlchemyDatasource.create(url, engine_kwargs={"pool_size": options["pool"]})
        DBOS.launch()

        async def answer(what: Json) -> Json:
            async def stop(job: str) -> None:
                await _stop(workflow, job)

            return await run_flows([stop] * what["at_once"], what["jobs"], seconds=what["seconds"])

        await answer_asks({}, answer)
        DBOS.destroy()


if __name__ == "__main__":
    be_a_child(_main)
