"""What is usually written: a Bolt app with Bolt's defaults, SQLAlchemy's ORM, and Alibaba's official SDK.

A click is acknowledged, the proposal is approved in the database by the ORM in a thread, and the SDK makes its call: in
a thread if it is the sync one, awaited if it is the async one. The client is made once. SQLite runs in WAL mode with
`synchronous=FULL`, like ours. The call is the same read that ours makes first.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Any

from alibabacloud_iot20180120 import models
from alibabacloud_iot20180120.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from slack_bolt.adapter.asgi.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bot.sandbox.server import BOT_TOKEN, KEY_ID, KEY_SECRET, SIGNING_SECRET
from bot.server import served
from tests.bench.machine import Json, answer_asks, be_a_child


class Base(DeclarativeBase):
    pass


class ProposalRow(Base):
    __tablename__ = "proposals"

    offer_id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    job: Mapped[str]
    instance_id: Mapped[str]
    approved_by: Mapped[str | None]
    approved_at: Mapped[datetime | None]


class EntryRow(Base):
    __tablename__ = "entries"

    entry_id: Mapped[int] = mapped_column(primary_key=True)
    offer_id: Mapped[str]
    name: Mapped[str]
    actor: Mapped[str]


class Ledger:
    """The proposals, by the ORM."""

    def __init__(self, path: str) -> None:
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _prepare)
        Base.metadata.create_all(self._engine)

    def offer(self, *, job: str, instance_id: str) -> str:
        offer_id = secrets.token_hex(16)
        with Session(self._engine) as session, session.begin():
            session.add(ProposalRow(offer_id=offer_id, state="offered", job=job, instance_id=instance_id))
        return offer_id

    def approve(self, offer_id: str, *, by: str) -> tuple[str, str]:
        """The job and instance of the proposal, which is approved now."""
        with Session(self._engine) as session, session.begin():
            row = session.scalars(select(ProposalRow).where(ProposalRow.offer_id == offer_id)).one()
            if row.state != "offered":
                raise LookupError("not waiting")
            row.state, row.approved_by, row.approved_at = "approved", by, datetime.now(UTC)
            session.add(EntryRow(offer_id=offer_id, name="proposal:confirmed", actor=by))
            return row.job, row.instance_id


def _prepare(connection: Any, record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


async def _main(options: Json) -> None:
    ledger = Ledger(options["database"])
    scheme, _, endpoint = options["iot_url"].partition("://")
    client = Client(
        Config(
            access_key_id=KEY_ID,
            access_key_secret=KEY_SECRET,
            endpoint=endpoint,
            protocol=scheme,
            region_id="cn-shanghai",
        )
    )
    app = AsyncApp(
        client=AsyncWebClient(token=BOT_TOKEN, base_url=f"{options['slack_url']}/api/"), signing_secret=SIGNING_SECRET
    )
    finished = asyncio.Queue[bool]()

    @app.action("proposal.confirm")
    async def confirm(ack: AsyncAck, body: Json) -> None:
        await ack()
        offer_id, by = body["actions"][0]["value"], body["user"]["id"]
        job, instance_id = await asyncio.to_thread(ledger.approve, offer_id, by=by)
        request = models.QueryOTAJobRequest(job_id=job, iot_instance_id=instance_id)
        if options["is_async"]:
            answer = await client.query_otajob_async(request)
        else:
            answer = await asyncio.to_thread(client.query_otajob, request)
        finished.put_nowait(bool(answer.body.success))

    async def answer(what: Json) -> Json:
        if what["ask"] == "offer":
            return {"offer": ledger.offer(job=what["job"], instance_id=what["instance_id"])}
        return {"is_success": await finished.get()}

    async with served(AsyncSlackRequestHandler(app, path="/slack/events")) as port:
        await answer_asks({"port": port}, answer)


if __name__ == "__main__":
    be_a_child(_main)
