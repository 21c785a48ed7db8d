"""Serving ASGI apps: the bot until it is told to stop, and others (the sandbox's) beside it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from bot.discovery import Rhythm
from bot.errors import ConfigurationError
from bot.logs import configure_logs, get_log
from bot.settings import Settings
from bot.wiring import App, running

STOP_SECONDS = 5
BACKLOG = 2048


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any that is free). Raises `ConfigurationError`."""
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
            [f"Cannot listen on {host} port {port} ({error.strerror or error}): choose another (HOST, PORT, --port)."]
        ) from error
    return listening


def _configuration(app: Any, *, has_lifespan: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on" if has_lifespan else "off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


async def until_signal() -> None:
    """Returns at SIGTERM or SIGINT; a second one ends the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stopped.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop, each)
    await stopped.wait()


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
async def served_on(app: Any, listening: socket.socket, *, has_lifespan: bool = False) -> AsyncIterator[None]:
    """Serves an app on a socket as long as the block runs."""
    server = _Server(_configuration(app, has_lifespan=has_lifespan))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def serve_until_stopped(settings: Settings) -> None:
    """Runs a bot and serves it. On SIGTERM or SIGINT it stops taking requests, then work, and returns."""
    configure_logs()
    with open_socket(settings.host, settings.port) as listening:
        async with running(settings, rhythm=Rhythm()) as app:
            _say_ready(app, listening)
            async with served_on(app.asgi, listening):
                await until_signal()
                app.is_draining = True


def _say_ready(app: App, listening: socket.socket) -> None:
    get_log().info(
        "serving",
        host=app.settings.host,
        port=listening.getsockname()[1],
        mode="socket" if app.settings.is_socket_mode else "http",
        policy=app.policy.digest[:12] if app.policy is not None else None,
        refuses_everything=app.policy is None,
    )
