"""The servers that are measured, one to a process: the bot as `otabrake serve` runs it, and a bare Bolt echo.

All are served by the bot's own `served` (uvicorn with the same configuration, on the same loop). They differ from
production in nothing but where Slack and the cloud are, and, where it is asked for, in a road that does not take work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from bot.logs import configure_logs
from bot.ports import Freed
from bot.sandbox.server import BOT_TOKEN, SIGNING_SECRET, sandbox_settings
from bot.server import served
from bot.storage.slots import SqlSlots
from bot.wiring import running
from tests.bench.machine import Json, answer_asks, be_a_child


class _FreeAgain(SqlSlots):
    """A slot is always free, as when somebody reads the card first; taking and giving back cost what they cost."""

    async def release(self, freed: Sequence[Freed]) -> None:
        await super().release([replace(each, at=0.0) for each in freed])


async def _bot(options: Json) -> None:
    configure_logs()
    settings = sandbox_settings(
        Path(options["folder"]),
        iot_url=options["iot_url"],
        slack_url=options["slack_url"],
        database_url=options["database_url"],
    )
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(running(settings, slots=_FreeAgain))
        app.road.is_taking_work = options["is_working"]
        port = await stack.enter_async_context(served(app.asgi))

        async def answer(what: Json) -> Json:
            if what["ask"] == "settle":
                for _ in range(3):
                    await app.road.drain()
                    await app.notifier.drain()
            if what["ask"] == "forget":
                await app.database.run(lambda connection: connection.exec_driver_sql("DELETE FROM inbox") and None)
            rows = await app.database.read(
                lambda connection: connection.exec_driver_sql("SELECT count(*) FROM inbox").scalar()
            )
            return {"rows": rows, "cpu_seconds": time.process_time()}

        await answer_asks({"port": port}, answer)


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
