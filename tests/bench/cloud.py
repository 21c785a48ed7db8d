"""The IoT simulator as a process of its own, that notes when each signed call arrives.

The time is the machine's monotonic clock, the same in every process. The fleet's time stands, so that the rollout is
the same at every click; the cancel itself is refused, so that a proposal ends right after its first calls.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.server import open_socket, served
from tests.bench.machine import Json, answer_asks, be_a_child


async def _main(options: Json) -> None:
    started = time.time()
    fleet = Fleet.from_seed(load_seed(), now=lambda: started, seed=7)
    iot = create_iot_app(fleet, now=time.time, is_throttling=False)
    iot.state.faults.add(Fault(FaultKind.REFUSE, action="CancelOTATaskByJob", code="Forbidden.RAM", status=403))
    arrivals: list[int] = []
    failures: list[int] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        arrivals.append(time.monotonic_ns())

        async def judged(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] not in (200, 403):
                failures.append(message["status"])
            await send(message)

        await iot(scope, receive, judged)

    async def answer(what: Json) -> Json:
        told = {"arrivals": list(arrivals), "failures": list(failures)}
        arrivals.clear()
        failures.clear()
        return told

    async with AsyncExitStack() as stack:
        ready = {"http": await stack.enter_async_context(served(noting))}
        if options["certificate"] is not None:
            listening = open_socket("127.0.0.1", 0)
            ready["https"] = listening.getsockname()[1]
            configuration = uvicorn.Config(
                noting,
                log_config=None,
                access_log=False,
                lifespan="off",
                ssl_certfile=options["certificate"],
                ssl_keyfile=options["key"],
            )
            server = uvicorn.Server(configuration)
            task = asyncio.create_task(server._serve([listening]))
        await answer_asks(ready, answer)
        if options["certificate"] is not None:
            server.should_exit = True
            await task


if __name__ == "__main__":
    be_a_child(_main)
