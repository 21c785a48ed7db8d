"""The servers that are measured, one to a process: the bot as `otabrake serve` runs it, and a bare Bolt echo.

All are served by the bot's own `served` (uvicorn with the same configuration, on the same loop). They differ from
production in nothing but where Slack and the cloud are, and, where it is asked for, in a road that does not take work.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from bot.charts import draw
from bot.logs import configure_logs
from bot.sandbox.server import BOT_TOKEN, SIGNING_SECRET, sandbox_settings
from bot.server import served
from bot.wiring import running
from bot.workflow.road import Road
from tests.bench.machine import Json, answer_asks, be_a_child
from tests.bench.unlimited import FreeAgain, draw_nothing, lift_limits, unlimited_settings


async def _bot(options: Json) -> None:
    configure_logs()
    is_for_flows = options.get("is_for_flows", False)
    if is_for_flows:
        lift_limits()
    settings = (unlimited_settings if is_for_flows else sandbox_settings)(
        Path(options["folder"]),
        iot_url=options["iot_url"],
        slack_url=options["slack_url"],
        database_url=options["database_url"],
    )
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(
            running(settings, slots=FreeAgain, draw=draw_nothing if is_for_flows else draw)
        )
        if not options["is_working"]:
            _leave_work(app.road)
        port = await stack.enter_async_context(served(app.asgi))

        async def answer(what: Json) -> Json:
            if what["ask"] == "settle":
                for _ in range(3):
                    await app.road.drain()
                    await app.notifier.drain()
            if what["ask"] in ("open", "forget_open"):
                return await app.database.run(partial(_open_rows, is_forgetting=what["ask"] == "forget_open"))
            if what["ask"] == "forget":
                await app.database.run(_forget)
            rows = await app.database.read(
                lambda connection: connection.exec_driver_sql("SELECT count(*) FROM inbox").scalar()
            )
            return {"rows": rows, "cpu_seconds": time.process_time()}

        await answer_asks({"port": port}, answer)


def _leave_work(road: Road) -> None:
    """From now on rows are written, and stay as they are."""

    async def leave(*_: object) -> None:
        return None

    road._answer = leave  # type: ignore[assignment, method-assign]
    road.sweep_once = leave  # type: ignore[method-assign]


def _open_rows(connection: Connection, *, is_forgetting: bool) -> Json:
    """How many deliveries wait, for tables so full that nobody counts all of them."""
    waiting = connection.exec_driver_sql("SELECT count(*) FROM inbox WHERE handled_at IS NULL").scalar()
    if is_forgetting:
        connection.exec_driver_sql("DELETE FROM inbox WHERE handled_at IS NULL")
        connection.exec_driver_sql("DELETE FROM leases")
    return {"open": waiting}


def _forget(connection: Connection) -> None:
    for table in ("inbox", "leases"):
        connection.exec_driver_sql(f"DELETE FROM {table}")


async def _echo(options: Json) -> None:
    from slack_bolt.adapter.asgi.async_handler import AsyncSlackRequestHandler
    from slack_bolt.async_app import AsyncAck, AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    app = AsyncApp(
        client=AsyncWebClient(token=BOT_TOKEN, base_url=f"{options['slack_url']}/api/"),
        signing_secret=SIGNING_SECRET,
        process_before_response=options["is_pbr"],
    )

    @app.command("/ota")
    async def echo(ack: AsyncAck, command: Json) -> None:
        await ack(command["text"])

    async def answer(what: Json) -> Json:
        return {"rows": None, "cpu_seconds": time.process_time()}

    async with served(AsyncSlackRequestHandler(app, path="/slack/events")) as port:
        await answer_asks({"port": port}, answer)


async def _main(options: Json) -> None:
    await (_bot if options["kind"] == "bot" else _echo)(options)


if __name__ == "__main__":
    be_a_child(_main)
