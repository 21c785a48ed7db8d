"""What Bolt calls: commands and clicks become deliveries, each written down before it is acknowledged.

Every listener is registered through `register`, which wraps it in one boundary: whatever goes wrong, the person is told
within Slack's three seconds. What a listener does not do: look anything up, decide, or call the cloud.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult

from bot.errors import StoreUnavailable
from bot.exchange import Delivery, Post, PostKind, ReplyTo
from bot.model import Notice
from bot.operations import Operations
from bot.ports.telemetry import AckResult
from bot.slack import views
from bot.slack.acks import Ack
from bot.slack.gate import Admitted, Identity, Kind
from bot.slack.payloads import asked, clicked, replying_to
from bot.slack.views import Message

WITHIN_SECONDS = 2.0
_ANY = re.compile(".*")

Receive = Callable[[Delivery], Awaitable[bool]]
Listener = Callable[[Admitted, Ack], Awaitable[Notice | None]]


def create_bolt(client: Any, identity: Identity) -> AsyncApp:
    """Bolt behind our gate: it routes, and answers each listener's acknowledgement at once.

    `process_before_response` avoids the 10 ms poll of Bolt's other mode; what the gate has done is switched off.
    """
    result = AuthorizeResult(
        enterprise_id=identity.enterprise_id, team_id=identity.team_id, bot_user_id=identity.bot_user_id
    )

    async def authorize(**_: object) -> AuthorizeResult:
        return result

    return AsyncApp(
        client=client,
        authorize=authorize,
        process_before_response=True,
        request_verification_enabled=False,
        ssl_check_enabled=False,
        url_verification_enabled=False,
        ignoring_self_events_enabled=False,
        attaching_function_token_enabled=False,
        attaching_conversation_kwargs_enabled=False,
        raise_error_for_unhandled_request=False,
        logger=logging.getLogger("slack_bolt"),
    )


class Listeners:
    """The listeners of one running bot."""

    def __init__(
        self,
        *,
        receive: Receive,
        operations: Operations,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        tell: Callable[[ReplyTo, Message], None],
    ) -> None:
        self._receive = receive
        self._tell = tell
        self._operations = operations
        self._clock = clock
        self._new_id = new_id

    def register(self, app: AsyncApp) -> None:
        app.command(_ANY)(self._bounded(self._command))
        app.action(_ANY)(self._bounded(self._click))

    def _bounded(self, listener: Listener) -> Callable[..., Awaitable[None]]:
        """The boundary: the listener's answer, or a sentence instead of silence."""

        async def bounded(ack: AsyncAck, context: Any) -> None:
            admitted: Admitted = context["admitted"]
            known: Ack = context["known"]
            try:
                async with asyncio.timeout(WITHIN_SECONDS):
                    notice = await listener(admitted, known)
            except TimeoutError:
                notice = _slow(self._in_trouble(known, AckResult.LATE, why=f"not written within {WITHIN_SECONDS:g} s"))
            except StoreUnavailable as error:
                say, result = (
                    (_slow, AckResult.LATE) if error.may_have_written else (_not_written, AckResult.NOT_WRITTEN)
                )
                notice = say(self._in_trouble(known, result, why=str(error)))
            except Exception as error:  # a person is waiting: anything is answered
                notice = _broken(self._in_trouble(known, AckResult.FAILED, error=error))
            await self._acknowledge(ack, admitted, notice)

        return bounded

    def _in_trouble(
        self, known: Ack, result: AckResult, *, why: str | None = None, error: Exception | None = None
    ) -> str:
        """The reference that the person is shown, and by which the log is searched."""
        known.result, known.why, known.error, known.reference = result, why, error, self._new_id()[:8]
        return known.reference

    async def _acknowledge(self, ack: AsyncAck, admitted: Admitted, notice: Notice | None) -> None:
        """A command is answered in the acknowledgement, for its sender alone; a click cannot be, so beside it."""
        if notice is None:
            await ack()
            return
        message = views.reply(Post(PostKind.REPLY, "", notice))
        if admitted.kind is Kind.COMMAND:
            await ack(text=message.text, blocks=list(message.blocks), response_type="ephemeral")
            return
        await ack()
        self._tell(replying_to(admitted), message)

    async def _command(self, admitted: Admitted, known: Ack) -> Notice | None:
        found = asked(admitted, self._operations, delivery_id=self._new_id(), now=self._clock())
        if isinstance(found, Notice):
            known.result, known.reply_to = AckResult.AT_ONCE, replying_to(admitted)
            return found
        await self._write_down(found, known)
        return None

    async def _click(self, admitted: Admitted, known: Ack) -> Notice | None:
        found = clicked(admitted, delivery_id=self._new_id(), now=self._clock())
        if found is None:
            known.result, known.reply_to = AckResult.UNKNOWN, replying_to(admitted)
        else:
            await self._write_down(found, known)
        return None

    async def _write_down(self, delivery: Delivery, known: Ack) -> None:
        known.delivery = delivery
        known.result = AckResult.WRITTEN if await self._receive(delivery) else AckResult.DUPLICATE


def _slow(reference: str) -> Notice:
    return Notice(
        "I could not write this down in time, so I don't know yet whether it counts. Watch the channel for a minute "
        "before you type it again.",
        reference=reference,
    )


def _not_written(reference: str) -> Notice:
    return Notice(
        "Not done: my database cannot be written now, so nothing was kept and nothing was sent. Try again; if it "
        "cannot wait, cancel the rollout in the cloud's console or with aliyun iot CancelOTATaskByJob.",
        reference=reference,
    )


def _broken(reference: str) -> Notice:
    return Notice(
        "Something broke inside otabrake. Nothing was sent to the cloud; try again, and show this reference to whoever "
        "runs it.",
        reference=reference,
    )
