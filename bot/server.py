"""Serving ASGI apps: the bot until it is told to stop, and others (the sandbox's) beside it.

Stopping is a courtesy: nothing needs it to be correct, for whatever is cut off goes on from its row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from bot.discovery import Rhythm
from bot.errors import ConfigurationError, StoreUnavailable
from bot.logs import configure_logs, get_log
from bot.settings import Settings
from bot.wiring import App, running

SHUTDOWN_SECONDS = 8.0
"""So long after the signal the process is gone, whatever happens: what is cut off then goes on from its row."""

DOOR_SECONDS = 2.0
"""The door stays open for so long after `/readyz` says no: load balancers need a moment to send nobody here."""

CALL_SECONDS = 5.0
"""So long a step that is under way (a signed call, above all) is waited for."""

OUTBOX_SECONDS = 2.0
ANSWER_SECONDS = 1
"""So long requests that are being answered are waited for, once the door is closed."""

STOP_SECONDS = 5
"""The same for apps beside the bot."""

BACKLOG = 2048
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int, *, named: str = "HOST, PORT, --port") -> socket.socket:
    """A listening socket (port 0: any that is free), by these settings. Raises `ConfigurationError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, because asyncio switches Nagle's delay off (40 ms an answer) only on sockets that say so.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            [f"Cannot listen on {host} port {port} ({error.strerror or error}): choose another ({named})."]
        ) from error
    return listening


def _configuration(app: Any, *, has_lifespan: bool, stop_seconds: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on" if has_lifespan else "off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=stop_seconds,
    )


async def until_signal() -> None:
    """Returns at SIGTERM or SIGINT; a second one, of either kind, ends the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopped.set()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # To a container's first process the kernel lets no signal through that it has no handler for.
            signal.signal(each, _exit_at_once if os.getpid() == 1 else signal.SIG_DFL)

    for each in _SIGNALS:
        loop.add_signal_handler(each, stop)
    await stopped.wait()


def _exit_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)


async def serve_until_signal(app: Any, listening: socket.socket, *, has_lifespan: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, and returns when what was under way is answered."""
    async with served_on(app, listening, has_lifespan=has_lifespan):
        await until_signal()


@contextlib.asynccontextmanager
async def served(app: Any, *, host: str = "127.0.0.1", port: int = 0, has_lifespan: bool = False) -> AsyncIterator[int]:
    """Serves an app as long as the block runs; its port."""
    listening = open_socket(host, port)
    async with served_on(app, listening, has_lifespan=has_lifespan):
        yield int(listening.getsockname()[1])


@contextlib.asynccontextmanager
async def served_on(
    app: Any, listening: socket.socket, *, has_lifespan: bool = False, stop_seconds: int = STOP_SECONDS
) -> AsyncIterator[None]:
    """Serves an app on a socket as long as the block runs; then waits so long for the answers that are under way."""
    server = _Server(_configuration(app, has_lifespan=has_lifespan, stop_seconds=stop_seconds))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def serve_until_stopped(settings: Settings) -> None:
    """Runs a bot and serves it until SIGTERM or SIGINT. Raises as `running` does."""
    configure_logs()
    async with contextlib.AsyncExitStack() as last, contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(open_socket(settings.host, settings.port))
        watched_at = _metrics_socket(settings)
        if watched_at is not None:
            stack.enter_context(watched_at)
        told = asyncio.create_task(until_signal(), name="signals")
        app = await _started(settings, stack, told)
        if app is None:
            get_log().info("stopped while starting")
            return
        if app.metrics is not None and watched_at is not None:
            await stack.enter_async_context(served_on(app.metrics.app, watched_at, stop_seconds=ANSWER_SECONDS))
        await stack.enter_async_context(served_on(app.asgi, listening, stop_seconds=ANSWER_SECONDS))
        _say_ready(app, listening, watched_at)
        await told
        last.enter_context(_at_most(SHUTDOWN_SECONDS))
        await _wind_down(app)


def _metrics_socket(settings: Settings) -> socket.socket | None:
    """Opened before anything else is begun: a port that is taken is said at once."""
    if settings.metrics_port is None:
        return None
    return open_socket(settings.host, settings.metrics_port, named="HOST, METRICS_PORT")


async def _started(settings: Settings, stack: contextlib.AsyncExitStack, told: asyncio.Task[None]) -> App | None:
    """The bot; None if the process was told to stop before it was there, which may have taken a minute."""

    def give_up(_: asyncio.Task[None]) -> None:
        start.reschedule(0)

    try:
        async with asyncio.timeout(None) as start:
            told.add_done_callback(give_up)
            return await stack.enter_async_context(running(settings, rhythm=Rhythm()))
    except TimeoutError:
        if not start.expired():
            raise
        return None
    finally:
        told.remove_done_callback(give_up)


async def _wind_down(app: App) -> None:
    """No new work; what is in the middle of a step is finished, and the rest is anybody's at once.

    What is delivered meanwhile is written down and acknowledged, for another replica or for the next start: a person
    whose click came half a second too late shall not have to know that.
    """
    log = get_log()
    log.info("stopping", at_most_seconds=SHUTDOWN_SECONDS)
    app.is_draining = True
    app.road.stop_taking_work()
    door = asyncio.sleep(0 if app.settings.is_socket_mode else DOOR_SECONDS)
    await asyncio.gather(door, app.road.finish(CALL_SECONDS))
    try:
        async with asyncio.timeout(OUTBOX_SECONDS):
            await app.notifier.drain()
    except (TimeoutError, StoreUnavailable) as error:
        log.info("posts are left for later", why=str(error) or "no time")


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """The process ends in any case: not even a thread that hangs in a driver may keep it."""
    began_at = time.monotonic()
    timer = threading.Timer(seconds, _give_up_stopping)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    get_log().info("stopped", seconds=round(time.monotonic() - began_at, 1))


def _give_up_stopping() -> None:
    get_log().error("not stopped in time: ends at once", seconds=SHUTDOWN_SECONDS)
    os._exit(1)


def _say_ready(app: App, listening: socket.socket, watched_at: socket.socket | None) -> None:
    get_log().info(
        "serving",
        host=app.settings.host,
        port=listening.getsockname()[1],
        metrics_port=watched_at.getsockname()[1] if watched_at is not None else None,
        mode="socket" if app.settings.is_socket_mode else "http",
        policy=app.policy.digest[:12] if app.policy is not None else None,
        refuses_everything=app.policy is None,
    )
