"""(b) From a click to the first signed call on the wire: p50 at concurrency 1.

A click is sent over an open connection; the time ends when the call's head is read at the simulator, in another
process, by the machine's monotonic clock. Ours makes its re-check read first; so does the usual code it is compared
with (`typical`). The offer is made before, outside the measured time, and everything that follows a click is over
before the next one. The person's identity is fresh and a slot of the budget is free, as when somebody reads the card
before clicking.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.sandbox.server import SIGNING_SECRET
from bot.sandbox.slack_payloads import Occasion, block_actions, form_body, json_body
from bot.sandbox.workspace import Message
from tests.bench.certificate import Certificate, make_certificate
from tests.bench.figures import Goal, at_most, print_table, ratio_row, row
from tests.bench.load import Connection, commands, http_request
from tests.bench.machine import Broken, Child, child, cores
from tests.bench.slack_side import SlackSide, slack_side

JOB, INSTANCE_ID = "7glPHmaDYLAYMD1HHutT02", "iot-cn-0pp1n8t0001"
USER, CHANNEL, CONFIRM = "U0ONCALLA1", "C0INCIDENT", "proposal.confirm"
OURS, SYNC, ASYNC = "ours, SQLite FULL", "typical, sync SDK", "typical, async SDK"
LET_IT_BE_SECONDS = 0.02
"""Nobody asks anything of a server so soon after a click: the call leaves undisturbed."""

_GOALS: dict[tuple[str, str], Goal] = {
    (SYNC, "http"): at_most(1.0),
    (SYNC, "https"): at_most(1.0),
    (ASYNC, "https"): at_most(0.1),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A server and how to get an offer out of it."""

    name: str
    server: Child

    @property
    def is_ours(self) -> bool:
        return self.name == OURS


async def measure(folder: Path, *, rounds: int, clicks: int) -> None:
    """Measures and prints the table."""
    certificate = make_certificate(folder)
    if certificate is None:
        print("https is skipped: cryptography is not installed (it comes with the official SDK)")
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(slack_side())
        cloud = await stack.enter_async_context(_cloud(folder, certificate))
        variants: dict[tuple[str, str], Variant] = {}
        for scheme in ("http", "https") if certificate is not None else ("http",):
            url = f"{scheme}://127.0.0.1:{cloud.ready[scheme]}"
            extra = certificate.trusting if certificate is not None and scheme == "https" else {}
            for name in (OURS, SYNC, ASYNC):
                server = await stack.enter_async_context(_server(folder, side, name, url, extra))
                variants[name, scheme] = Variant(name, server)
        for variant in variants.values():
            for _ in range(3):
                await _click_once(variant, cloud, side)
        for at in range(rounds):
            keys = list(variants)
            for key in keys[at % len(keys) :] + keys[: at % len(keys)]:
                times = sorted([await _click_once(variants[key], cloud, side) for _ in range(clicks)])
                took[key].append(times[len(times) // 2])
            print(f"click: round {at + 1} of {rounds}", flush=True)
    _report(took, rounds=rounds, clicks=clicks)


@asynccontextmanager
async def _cloud(folder: Path, certificate: Certificate | None) -> AsyncIterator[Child]:
    files = (str(certificate.certificate), str(certificate.key)) if certificate is not None else (None, None)
    async with child("cloud", folder, core=cores()[1], certificate=files[0], key=files[1]) as cloud:
        yield cloud


@asynccontextmanager
async def _server(
    folder: Path, side: SlackSide, name: str, iot_url: str, extra: dict[str, str]
) -> AsyncIterator[Child]:
    own = folder / secrets.token_hex(4)
    own.mkdir()
    shared: dict[str, Any] = {"core": cores()[0], "extra": extra, "iot_url": iot_url, "slack_url": side.url}
    if name == OURS:
        options: dict[str, Any] = {"kind": "bot", "folder": str(own), "database_url": None, "is_working": True}
        async with child("servers", folder, **shared, **options) as server:
            yield server
    else:
        options = {"kind": name, "database": str(own / "typical.db"), "is_async": name == ASYNC}
        async with child("typical", folder, **shared, **options) as server:
            yield server


async def _click_once(variant: Variant, cloud: Child, side: SlackSide) -> float:
    """Microseconds from the click to its first call."""
    port = variant.server.port
    connection = await Connection.to(port)
    message = await _offered(variant, side, connection)
    request = http_request(_click_on(message, side), port=port, secret=SIGNING_SECRET)
    await cloud.ask(ask="calls")
    await asyncio.sleep(0.005)
    clicked_at = time.monotonic_ns()
    status = await connection.send(request)
    await asyncio.sleep(LET_IT_BE_SECONDS)
    settled = await variant.server.ask(ask="settle")
    told = await cloud.ask(ask="calls")
    connection.close()
    if status != 200 or not told["arrivals"] or told["failures"] or settled.get("is_success") is False:
        raise Broken(f"{variant.name}: click answered {status}, {told}, {settled}")
    return float(min(told["arrivals"]) - clicked_at) / 1000


async def _offered(variant: Variant, side: SlackSide, connection: Connection) -> Message:
    """A message with a button that stands; for ours, a command is typed and its card awaited."""
    slack = side.slack
    if not variant.is_ours:
        told = await variant.server.ask(ask="offer", job=JOB, instance_id=INSTANCE_ID)
        return Message(
            channel=CHANNEL,
            ts=slack.workspace.mint_ts(time.time()),
            user=slack.app.bot_user,
            bot_id=slack.app.bot_id,
            text="Cancel this rollout?",
            blocks=(_buttons(told["offer"]),),
        )
    text = f"cancel {JOB} on prod-shanghai because 4.2.1 bricks gateways"
    [command] = commands(1, port=variant.server.port, secret=SIGNING_SECRET, text=text, response_url=side.response_url)
    if await connection.send(command) != 200:
        raise Broken("the command was not acknowledged")
    await variant.server.ask(ask="settle")
    card = [one for one in slack.workspace.messages(CHANNEL) if one.thread_ts is None][-1]
    for message in slack.workspace.messages(CHANNEL, card.ts):
        if _button_of(message) is not None:
            return message
    raise Broken(f"no offer came of the command: {[one.text for one in slack.workspace.ephemerals(USER)][-1:]}")


def _buttons(offer: str) -> dict[str, Any]:
    button = {
        "type": "button",
        "action_id": CONFIRM,
        "text": {"type": "plain_text", "text": "Confirm"},
        "value": offer,
    }
    return {"type": "actions", "block_id": "buttons", "elements": [button]}


def _button_of(message: Message) -> tuple[str, dict[str, Any]] | None:
    for block in message.blocks:
        for element in block.get("elements", ()) if block.get("type") == "actions" else ():
            if element.get("action_id") == CONFIRM:
                return block.get("block_id", ""), dict(element)
    return None


def _click_on(message: Message, side: SlackSide) -> bytes:
    """The body of the delivery that a click on `message` makes."""
    workspace = side.slack.workspace
    found = _button_of(message)
    if found is None:
        raise Broken("there is no button to click")
    occasion = Occasion(
        app_id=side.slack.app.app_id,
        person=workspace.people[USER],
        channel=workspace.channels[CHANNEL],
        trigger_id=f"1.2.{secrets.token_hex(8)}",
        response_url=side.response_url,
    )
    payload = block_actions(
        workspace, occasion, message=message, block_id=found[0], element=found[1], action_ts=f"{time.time():.6f}"
    )
    return form_body({"payload": json_body(json.loads(json.dumps(payload)))})


def _report(took: dict[tuple[str, str], list[float]], *, rounds: int, clicks: int) -> None:
    absolute = [row(f"{name}, {scheme}", times, unit="us") for (name, scheme), times in took.items()]
    ratios = [
        ratio_row(f"ours / {name}, {scheme}", took[OURS, scheme], times, _GOALS.get((name, scheme)))
        for (name, scheme), times in took.items()
        if name != OURS
    ]
    about = f"p50 of {clicks} clicks in each of {rounds} interleaved rounds"
    print_table(f"(b) Click to first signed call, {about}", ("figure", "median", "range"), absolute)
    print_table("(b) Ratios, taken round by round", ("ratio", "median", "range", "goal"), ratios)
    print(
        "https: the simulator on loopback with a throw-away certificate; clients trust certifi's whole bundle and it, "
        "so that making a TLS context costs\nwhat it costs by default. The goal for the async SDK is meant for https, "
        "and judged there alone."
    )
