"""The command line. Exit codes: 0 yes · 1 no · 2 wrong usage, input or configuration · 3 a dependency is absent.

Each command translates its arguments, calls one function elsewhere, and prints. What it does not do: decide.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import click

from bot.commands.db import db
from bot.commands.job import job
from bot.errors import ConfigurationError, DependencyAbsent, PolicyInvalid

NO, WRONG, ABSENT = 1, 2, 3
TOUCHES = ("SCHEDULED", "CONFIRM", "QUEUED", "NOTIFIED", "IN_PROGRESS")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="otabrake")
def main() -> None:
    """The emergency brake for OTA firmware rollouts, in Slack."""


main.add_command(db)
main.add_command(job)


@main.command()
def serve() -> None:
    """Run the bot. It reads its settings from the environment (README, "Settings")."""
    gc.disable()  # what is imported stays: looking through it for garbage would be a tenth of the start
    from bot.server import serve_until_stopped
    from bot.wiring import read_configuration

    gc.freeze()
    gc.enable()
    try:
        settings = read_configuration(os.environ)
    except ConfigurationError as error:
        _fail(WRONG, "otabrake cannot start. What to mend:", error.problems)
    _serve(serve_until_stopped(settings))


@main.group(invoke_without_command=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Where the page is served."
)
@click.pass_context
def sandbox(context: click.Context, port: int) -> None:
    """Try it with no accounts: a fake Slack, an IoT simulator with a fleet, the bot and a page, in one process."""
    if context.invoked_subcommand is None:
        from bot.sandbox.server import serve_sandbox

        _serve(serve_sandbox(port=port))


@sandbox.command("iot")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Where the API is served.")
def sandbox_iot(port: int) -> None:
    """Serve the IoT simulator alone, for any SDK (access key testid, secret testsecret)."""
    from bot.sandbox.server import serve_iot

    _serve(serve_iot(port=port))


@sandbox.command("slack")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Where the Web API and the page are served.")
@click.option("--app-url", help="Where your app takes Slack's deliveries; without it, your app uses Socket Mode.")
def sandbox_slack(port: int, app_url: str | None) -> None:
    """Serve the fake Slack alone, for any Bolt app."""
    from bot.sandbox.server import serve_slack

    _serve(serve_slack(port=port, app_url=app_url))


@main.group()
def policy() -> None:
    """Check the policy, and ask it why."""


_FOLDER = click.option(
    "--policies",
    "folder",
    type=click.Path(path_type=Path),
    envvar="OTABRAKE_POLICIES",
    default="policies",
    show_default=True,
    help="The policy folder.",
)


@policy.command("check")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def policy_check(folder: Path, as_json: bool) -> None:
    """Load the policy folder and list everything that is wrong with it."""
    from bot.wiring import load_policy

    try:
        loaded = load_policy(folder)
    except PolicyInvalid as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "complaints": error.complaints}))
            sys.exit(WRONG)
        _fail(WRONG, f"{folder} is not a valid policy:", error.complaints)
    if as_json:
        click.echo(json.dumps({"ok": True, "digest": loaded.digest, "rules": len(loaded.rules)}))
    else:
        click.echo(
            f"{folder}: {len(loaded.rules)} rules, {len(loaded.instances)} instances, digest {loaded.digest[:12]}"
        )


@policy.command("explain")
@_FOLDER
@click.option("--user", required=True, help="A Slack user id, or a person at a terminal: alice@ops1.")
@click.option("--group", "groups", multiple=True, help="A user group id the person is in; may be repeated.")
@click.option("--channel", help="The id of the channel it is asked in; without it, a direct message.")
@click.option("--instance", required=True, help="The name of an instance.")
@click.option("--product", help="The product key of the job; without it, unknown.")
@click.option("--touches", multiple=True, type=click.Choice(TOUCHES), help="What the call names; without it, unknown.")
@click.option("--devices", type=click.IntRange(0), help="How many devices it touches; without it, unknown.")
@click.argument("operation")
def policy_explain(
    folder: Path,
    user: str,
    operation: str,
    groups: tuple[str, ...],
    channel: str | None,
    instance: str,
    product: str | None,
    touches: tuple[str, ...],
    devices: int | None,
) -> None:
    """Show every rule considered for OPERATION (such as job.cancel), and why it matched or not. Exit code 1: denied."""
    from datetime import UTC, datetime

    from bot.model import UNKNOWN, Actor, Question, Touch
    from bot.policy.explain import explain, render
    from bot.wiring import OPERATIONS, load_policy

    try:
        loaded = load_policy(folder)
    except PolicyInvalid as error:
        _fail(WRONG, f"{folder} is not a valid policy:", error.complaints)
    if operation not in OPERATIONS.names():
        _fail(WRONG, f"There is no operation {operation}.", [f"known: {', '.join(OPERATIONS.names())}"])
    if instance not in loaded.instances:
        _fail(WRONG, f"There is no instance {instance}.", [f"known: {', '.join(loaded.instances)}"])
    trace = explain(
        loaded,
        Question(
            actor=Actor(user, frozenset(groups), datetime.now(UTC)),
            operation=operation,
            channel=channel,
            instance=instance,
            product=product or UNKNOWN,
            touches=frozenset(Touch(word) for word in touches) or UNKNOWN,
            devices=UNKNOWN if devices is None else devices,
        ),
    )
    click.echo(render(trace))
    sys.exit(0 if trace.decision.is_allowed else NO)


def _serve(serving: Coroutine[Any, Any, None]) -> None:
    """Runs a server until it ends or is interrupted, on uvloop where there is one."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serving)
    except ConfigurationError as error:
        _fail(WRONG, "otabrake cannot start. What to mend:", error.problems)
    except DependencyAbsent as error:
        _fail(ABSENT, "otabrake cannot start. What is missing:", [str(error)])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _fail(code: int, headline: str, problems: tuple[str, ...] | list[str]) -> NoReturn:
    click.echo(headline, err=True)
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
    sys.exit(code)
