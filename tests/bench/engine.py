"""Whole flows without Slack: the bot in this process, asks and clicks handed to its road, posts said to nobody.

What is left is what an engine does: rows, states, audit, leases, the outbox (written, read and settled), and the signed
calls. It is compared with the same flow on an engine that one can install (`dbos_flow`), which has no Slack either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import bot.slack.notifier
import bot.wiring
from bot.alibaba.reads import Reads
from bot.exchange import Ask, Choice, Click, Delivery, ReplyTo
from bot.logs import configure_logs
from bot.model import Counts, Place, Target, TaskState
from bot.ports import Purpose
from bot.slack.pace import Urgency
from bot.slack.views import Message
from bot.wiring import App, new_id, now, running
from tests.bench.flow_watch import Watch, run_flows
from tests.bench.machine import Json, answer_asks, be_a_child
from tests.bench.unlimited import INSTANCE, FreeAgain, draw_nothing, lift_limits, unlimited_settings

USER = "U0ONCALLA1"


class Unsaid:
    """`bot.slack.messages.Messages`, but for the way to Slack."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def post(
        self,
        channel: str | None,
        message: Message,
        thread: str | None = None,
        *,
        urgency: Urgency = Urgency.SOON,
        is_broadcast: bool = False,
    ) -> str:
        return self._watch.posted(channel or "", message.text, thread, is_broadcast=is_broadcast)

    async def update(
        self, channel: str | None, ts: str | None, draw: Callable[[], Awaitable[Message]], *, urgency: Urgency
    ) -> None:
        message = await draw()
        self._watch.updated(channel or "", ts or "", message.text, message.blocks)

    async def reply(self, to: ReplyTo, message: Message) -> None:
        self._watch.replied(to.place.channel or "", message.text)


class NoFiles:
    """`bot.slack.attachments.Attachments` that has sent everything already."""

    async def send_to(self, *_: object, **__: object) -> bool:
        return True

    async def send(self, *_: object, **__: object) -> bool:
        return True


async def counted_at_once(
    reads: Reads,
    target: Target,
    states: Sequence[TaskState],
    *,
    purpose: Purpose = Purpose.PREVIEW,
    in_order: bool = False,
) -> Counts:
    """All counts from one page of tasks, in one call: enough for a rollout as small as these."""
    page = await reads.fetch_task_page(target, 1, purpose=purpose)
    counts: dict[TaskState, int | None] = {state: sum(task.state is state for task in page.tasks) for state in states}
    return Counts(counts, now())


def take_few_calls() -> None:
    """From now on this process counts the devices of a rollout with one call, not with one for each state."""
    Reads.fetch_counts = counted_at_once  # type: ignore[assignment, method-assign]


class Engineer:
    """Asks and clicks, without a wire."""

    def __init__(self, app: App, watch: Watch) -> None:
        self._app = app
        self._watch = watch

    async def stop(self, job: str) -> None:
        flow = self._watch.begin(job)
        try:
            place = Place(flow.channel)
            await self._deliver(Ask("job.cancel", job, INSTANCE, reason="4.2.1 bricks gateways"), place)
            offered = await flow.reached(flow.offered)
            place = Place(flow.channel, offered.thread)
            await self._deliver(Click(Choice.CONFIRM, offered.element["value"]), place)
            await flow.reached(flow.ended)
        finally:
            self._watch.forget(flow)

    async def _deliver(self, content: Ask | Click, place: Place) -> None:
        await self._app.road.receive(Delivery(new_id(), new_id(), ReplyTo(USER, place), now(), content))


def _say_nothing(watch: Watch) -> None:
    def messages(*_: Any) -> Unsaid:
        return Unsaid(watch)

    def attachments(*_: Any, **__: Any) -> NoFiles:
        return NoFiles()

    bot.slack.notifier.Messages = messages  # type: ignore[assignment, attr-defined]
    bot.wiring.Attachments = attachments  # type: ignore[assignment, attr-defined]


async def _main(options: Json) -> None:
    configure_logs()
    lift_limits()
    if options["is_thin"]:
        take_few_calls()
    watch = Watch()
    _say_nothing(watch)
    settings = unlimited_settings(
        Path(options["folder"]),
        iot_url=options["iot_url"],
        slack_url=options["slack_url"],
        database_url=options["database_url"],
    )
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(running(settings, slots=FreeAgain, draw=draw_nothing))

        async def answer(what: Json) -> Json:
            engineers = [Engineer(app, watch).stop for _ in range(what["at_once"])]
            return await run_flows(engineers, what["jobs"], seconds=what["seconds"])

        await answer_asks({}, answer)


if __name__ == "__main__":
    be_a_child(_main)
