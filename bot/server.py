"""Serving the bot over HTTP until it is told to stop."""

from __future__ import annotations

import uvicorn

from bot.logs import configure_logs, get_log
from bot.settings import Settings
from bot.wiring import App, running

STOP_SECONDS = 5


def server_for(app: object, *, host: str, port: int) -> uvicorn.Server:
    """A server of an ASGI app, quiet and without a lifespan of its own."""
    return uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )


async def serve_until_stopped(settings: Settings) -> None:
    """Runs a bot and serves it. On SIGTERM or SIGINT it stops taking requests, then work, and returns."""
    configure_logs()
    async with running(settings) as app:
        _say_ready(app)
        server = server_for(app.asgi, host=settings.host, port=settings.port)
        await server.serve()


def _say_ready(app: App) -> None:
    settings = app.settings
    get_log().info(
        "serving",
        host=settings.host,
        port=settings.port,
        mode="socket" if settings.is_socket_mode else "http",
        policy=app.policy.digest[:12] if app.policy is not None else None,
        refuses_everything=app.policy is None,
    )
