"""What the audit says: the names of its entries and their canonical bytes.

An entry is appended in the transaction of the step that it records, and never changed. What it does not do: seal the
entries into a chain, or read them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

Fact = str | int | bool | None | list[str] | dict[str, int | None]


class EntryName(StrEnum):
    """`subject:verb`; never renamed."""

    ASKED = "proposal:asked"
    OFFERED = "proposal:offered"
    CONFIRMED = "proposal:confirmed"
    REOFFERED = "proposal:reoffered"
    ENDED = "proposal:ended"
    CALLED = "call:intended"
    ACCEPTED = "call:accepted"
    DEFERRED = "call:deferred"
    LOST = "call:lost"
    GIVEN_UP = "call:given_up"
    SHOWN = "read:shown"
    REFUSED = "ask:refused"
    CLICK_REFUSED = "click:refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One audit line: what happened, when, by whom (a user id, or `otabrake`), to which proposal, with which facts."""

    name: EntryName
    at: datetime
    actor: str
    proposal_id: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)


def canonical_bytes(entry: Entry) -> bytes:
    """The one spelling of an entry: JSON with sorted keys, no spaces, UTF-8, times in UTC with microseconds."""
    body = {
        "name": entry.name.value,
        "at": entry.at.isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "proposal": entry.proposal_id,
        "facts": dict(entry.facts),
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
