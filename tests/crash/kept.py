"""What stands in a database after a flow, read beside the bot: never through it, and never written."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select

from bot.exchange import Delivery, Post
from bot.ports import Surface
from bot.proposals import Call, Proposal, State
from bot.storage.codec import from_json
from bot.storage.database import Database
from bot.storage.tables import calls, entries, inbox, offers, outbox, proposals, surfaces


@dataclass(frozen=True, slots=True)
class KeptPost:
    post_id: int
    post: Post
    is_settled: bool
    failure: str | None


@dataclass(frozen=True, slots=True)
class KeptEntry:
    entry_id: int
    name: str
    actor: str
    proposal_id: str | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """All rows that the checks look at; entries and posts in the order of writing."""

    deliveries: tuple[tuple[Delivery, bool], ...]
    proposals: tuple[Proposal, ...]
    offers: dict[str, str]
    entries: tuple[KeptEntry, ...]
    posts: tuple[KeptPost, ...]
    surfaces: dict[str, Surface]

    def posts_of(self, lane: str) -> tuple[KeptPost, ...]:
        return tuple(each for each in self.posts if each.post.lane == lane)

    def entries_of(self, proposal_id: str) -> tuple[KeptEntry, ...]:
        return tuple(each for each in self.entries if each.proposal_id == proposal_id)


async def fetch_kept(database: Database) -> Kept:
    return await database.read(_kept)


async def is_at_rest(database: Database) -> bool:
    """Whether nothing is owed, unanswered or under way."""

    def unit(connection: Connection) -> bool:
        owed = select(func.count()).select_from(outbox).where(outbox.c.settled_at.is_(None))
        unanswered = select(func.count()).select_from(inbox).where(inbox.c.handled_at.is_(None))
        open_ones = select(func.count()).select_from(proposals).where(proposals.c.state != State.FINISHED.value)
        return not any(connection.scalar(statement) for statement in (owed, unanswered, open_ones))

    return await database.read(unit)


def _kept(connection: Connection) -> Kept:
    made: dict[str, list[Call]] = defaultdict(list)
    for row in connection.execute(select(calls).order_by(calls.c.proposal_id, calls.c.step, calls.c.attempt)):
        made[row.proposal_id].append(from_json(Call, row.body))
    found = [from_json(Proposal, row.body) for row in connection.execute(select(proposals))]
    return Kept(
        deliveries=tuple(
            (from_json(Delivery, row.body), row.handled_at is not None) for row in connection.execute(select(inbox))
        ),
        proposals=tuple(replace(each, calls=tuple(made[each.proposal_id])) for each in found),
        offers={row.offer_id: row.proposal_id for row in connection.execute(select(offers))},
        entries=tuple(_entry(row) for row in connection.execute(select(entries).order_by(entries.c.entry_id))),
        posts=tuple(
            KeptPost(row.post_id, from_json(Post, row.body), row.settled_at is not None, row.failure)
            for row in connection.execute(select(outbox).order_by(outbox.c.post_id))
        ),
        surfaces={
            row.proposal_id: Surface(row.channel, row.card, row.buttons, row.progress)
            for row in connection.execute(select(surfaces))
        },
    )


def _entry(row: Any) -> KeptEntry:
    facts = json.loads(row.body)["facts"]
    return KeptEntry(row.entry_id, row.name, row.actor, row.proposal_id, facts)
