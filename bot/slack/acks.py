"""What becomes of one delivery between the gate and its acknowledgement: listeners fill it in, the door tells it on."""

from __future__ import annotations

from dataclasses import dataclass

from bot.exchange import Delivery, ReplyTo
from bot.ports.telemetry import Acknowledged, AckResult
from bot.slack.gate import Kind

_KINDS = {Kind.COMMAND: "command", Kind.ACTIONS: "click", Kind.OTHER: "other"}


@dataclass(slots=True)
class Ack:
    """Of one delivery. Until a listener says otherwise, nobody listened to it."""

    result: AckResult = AckResult.IGNORED
    delivery: Delivery | None = None
    reply_to: ReplyTo | None = None
    reference: str | None = None
    why: str | None = None
    error: BaseException | None = None

    def given(self, kind: Kind, seconds: float) -> Acknowledged:
        """The acknowledgement is on its way."""
        return Acknowledged(
            _KINDS[kind],
            self.result,
            seconds,
            delivery=self.delivery,
            reply_to=self.reply_to,
            reference=self.reference,
            why=self.why,
            error=self.error,
        )
