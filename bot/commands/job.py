"""`otabrake job …`: rollouts, looked at and stopped from a terminal, when Slack is down.

Arguments in, a conversation, an exit code out: 0 yes · 1 no (denied, not confirmed, not stopped, not known) · 2 wrong
usage or configuration · 3 the database is absent. What it does not do: decide, or know Slack.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from bot.exchange import Choice
    from bot.terminal.conversation import Conversation
    from bot.workflow.means import Log

WRONG, ABSENT, INTERRUPTED = 2, 3, 1
REASON_LENGTH = 500
FLAGS = {
    "queued": "Tasks whose device has not been told yet.",
    "notified": "Tasks whose device was told and may be flashing unreported.",
    "in-progress": "Tasks whose device reported progress: may leave it half flashed.",
    "unconfirmed": "Tasks that wait for a confirmation in the app.",
    "scheduled": "Tasks of a batch whose hour has not come.",
}
STATES = ("confirm", "queued", "notified", "in-progress", "succeeded", "failed", "canceled")
_WORD = re.compile(r"[A-Za-z0-9_.*-]{1,128}")
_OFFER = re.compile(r"[0-9a-f]{6,32}")
Command = Callable[..., None]
Talk = Callable[["Conversation"], Awaitable[int]]


def _word(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _WORD.fullmatch(value):
        raise click.BadParameter("letters, digits, dots, dashes and underscores, at most 128: copy it again.")
    return value


def _offer(context: click.Context, param: click.Parameter, value: str) -> str:
    if not _OFFER.fullmatch(value.casefold()):
        raise click.BadParameter("6 to 32 of the characters 0-9 and a-f: copy it from where the offer was shown.")
    return value.casefold()


def _because(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """In one line, as a reason is that was typed in Slack."""
    from bot.terminal.screen import harmless

    return harmless(" ".join((value or "").split())).strip()[:REASON_LENGTH] or None


_JOB = click.argument("job_id", metavar="JOB", callback=_word)
_ON = click.option("--on", "instance", metavar="INSTANCE", callback=_word, help="The instance, if it is not clear.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
_OFFER_ID = click.argument("offer_id", metavar="OFFER", callback=_offer)


def _stop(command: Command) -> Command:
    """The options that both ways to stop a rollout have."""
    options: list[Callable[[Command], Command]] = [_JOB, _ON]
    options += [click.option(f"--{flag}", flag.replace("-", "_"), is_flag=True, help=FLAGS[flag]) for flag in FLAGS]
    options += [
        click.option("--because", metavar="TEXT", callback=_because, help="Why; the policy may require it."),
        click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show what would happen, and the decision."),
        click.option(
            "--break-glass",
            "is_break_glass",
            is_flag=True,
            help="Go on without other people's approvals, where the policy admits that; needs --because, and the audit "
            "says so. (Policies of this version cannot require approvals yet, so nothing is waived.)",
        ),
        _JSON,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def job() -> None:
    """Look at rollouts and stop them from a terminal, when Slack is down.

    The policy, the audit and the call are those of Slack; who asks is the OS user at this machine (a group with
    terminal: [alice@ops1] in the policy), and no channel. Settings are those of `serve`; Slack's are not needed.
    """


@job.command("show")
@_JOB
@_ON
@_JSON
def show(job_id: str, instance: str | None, as_json: bool) -> None:
    """Show a rollout: its state, how many devices are in each state, and why devices failed."""
    _ask("job.show", job_id, instance, as_json=as_json)


@job.command("list")
@click.argument("word", required=False, callback=_word)
@_ON
@_JSON
def list_(word: str | None, instance: str | None, as_json: bool) -> None:
    """List the rollouts that `serve` has found lately: all, or those of a product, a firmware or a version."""
    _ask("job.list", "", instance, as_json=as_json, word=word or "")


@job.command("tasks")
@_JOB
@click.argument("state", required=False, type=click.Choice(STATES, case_sensitive=False))
@_ON
@_JSON
def tasks(job_id: str, state: str | None, instance: str | None, as_json: bool) -> None:
    """List the devices of a rollout, all of them or those in one state."""
    params = frozenset({state.replace("-", "_")}) if state else frozenset[str]()
    _ask("job.tasks", job_id, instance, as_json=as_json, params=params)


@job.command("cancel")
@_stop
def cancel(**given: Any) -> None:
    """Stop the tasks of a rollout, after its id was typed to confirm.

    With no flags: queued, notified and unconfirmed ones, and scheduled ones while the rollout is planned; never devices
    in progress. With flags: only those that are named. The id may be piped in: echo JOB | otabrake job cancel JOB
    """
    _ask_to_stop("job.cancel", **given)


@job.command("halt")
@_stop
def halt(**given: Any) -> None:
    """Stop a rollout for good, after its id was typed to confirm.

    First the strategy of a dynamic batch, which matches new devices, then its tasks as `cancel` does.
    """
    _ask_to_stop("job.halt", **given)


@job.command("approve")
@_OFFER_ID
@_JSON
def approve(offer_id: str, as_json: bool) -> None:
    """Say yes to an offer that waits, by its id or the beginning of it, after the job's id was typed."""
    from bot.exchange import Choice

    _answer(offer_id, Choice.CONFIRM, as_json=as_json)


@job.command("dismiss")
@_OFFER_ID
@_JSON
def dismiss(offer_id: str, as_json: bool) -> None:
    """Take an offer back that waits, by its id or the beginning of it. Nothing is sent."""
    from bot.exchange import Choice

    _answer(offer_id, Choice.DISMISS, as_json=as_json)


def _ask_to_stop(
    operation: str,
    *,
    job_id: str,
    instance: str | None,
    because: str | None,
    is_dry_run: bool,
    is_break_glass: bool,
    as_json: bool,
    **flags: bool,
) -> None:
    if is_break_glass and not because:
        raise click.UsageError("--break-glass needs a reason: --because …")
    _ask(
        operation,
        job_id,
        instance,
        as_json=as_json,
        params=frozenset(flag for flag, is_given in flags.items() if is_given),
        reason=because,
        is_dry_run=is_dry_run,
        is_break_glass=is_break_glass,
    )


def _ask(operation: str, job_id: str, instance: str | None, *, as_json: bool, **given: Any) -> None:
    from bot.exchange import Ask

    ask = Ask(operation, job_id, instance, **given)
    _converse(lambda conversation: conversation.ask(ask), as_json=as_json)


def _answer(offer_id: str, choice: Choice, *, as_json: bool) -> None:
    _converse(lambda conversation: conversation.answer(offer_id, choice), as_json=as_json)


def _converse(talk: Talk, *, as_json: bool) -> NoReturn:
    """Carries out one conversation, and ends the process with its exit code."""
    from bot.errors import ConfigurationError, DependencyAbsent, PolicyInvalid, StoreUnavailable
    from bot.terminal.conversation import Conversation
    from bot.terminal.identity import person_here
    from bot.terminal.keyboard import StandardInput
    from bot.terminal.screen import Screen
    from bot.terminal_wiring import at_terminal, read_terminal_settings

    screen = Screen(click.echo, prompt=lambda text: click.echo(text, nl=False, err=as_json), is_json=as_json)
    under_way: list[Conversation] = []

    async def carry_out() -> int:
        settings, actor = read_terminal_settings(os.environ), person_here()
        async with at_terminal(settings, actor, log=_errors_only()) as terminal:
            under_way.append(Conversation(terminal, screen, StandardInput()))
            return await talk(under_way[0])

    _forgive_encodings()
    try:
        with asyncio.Runner() as runner:
            code = runner.run(carry_out())
    except KeyboardInterrupt:
        click.echo(err=True)
        for conversation in under_way:
            screen.say("interrupted", conversation.farewell)
        sys.exit(INTERRUPTED)
    except ConfigurationError as error:
        _fail(WRONG, "otabrake cannot be used here. What to mend:", error.problems)
    except PolicyInvalid as error:
        _fail(WRONG, "There is no valid policy, so nothing is allowed:", error.complaints)
    except (DependencyAbsent, StoreUnavailable) as error:
        for conversation in under_way:
            screen.say("interrupted", conversation.farewell)
        _fail(ABSENT, "The database cannot be used:", [str(error)])
    sys.exit(code)


def _errors_only() -> Log:
    """What goes wrong inside, on standard error, as JSON: nothing in it is a command to the terminal."""
    from bot.logs import configure_logs, get_log

    configure_logs(is_json=True, least=logging.ERROR)
    return get_log()


def _forgive_encodings() -> None:
    """A terminal that cannot show a sign shows another one in its place; it must not stop the brake."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")


def _fail(code: int, headline: str, problems: Sequence[str]) -> NoReturn:
    click.echo(headline, err=True)
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
    sys.exit(code)
