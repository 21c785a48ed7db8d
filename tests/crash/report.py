"""The table of a run: a row for each kind of place where a replica died. Pure, apart from printing."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tests.bench.figures import print_table
from tests.crash.episodes import Episode

HEADS = (
    "where it died",
    "kills",
    "restart / takeover",
    "ended as",
    "steps with an effect",
    "tried anew",
    "repeated posts",
    "seconds to the last line: p50, most",
    "wrong",
)
_KINDS: Sequence[tuple[str, str]] = (
    ("before writing", "before a transaction"),
    ("written, not committed", "in a transaction"),
    ("committed", "after a commit"),
    ("the call is on its way", "the call is on its way"),
    ("the answer is on its way", "the call's answer is on its way"),
    ("before: call", "before a call"),
    ("after: call", "after a call's answer"),
    ("before: fetch", "before a read"),
    ("after: fetch", "after a read"),
    ("Slack has it", "Slack has the post, its answer is on its way"),
    ("before: Slack", "before a post"),
    ("after: Slack", "after a post"),
    ("before: file", "before a file"),
    ("after: file", "after a file"),
    ("after its flow", "after the last line"),
    ("after", "at a random moment"),
)


def print_report(title: str, episodes: Sequence[Episode]) -> None:
    by_kind: Mapping[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_kind[_kind(episode.died_at)].append(episode)
    order = list(dict.fromkeys(kind for _, kind in _KINDS))
    rows = [_row(kind, by_kind[kind]) for kind in order if by_kind[kind]]
    print_table(title, HEADS, [*rows, _row("all", episodes)])


def _kind(died_at: str) -> str:
    return next(kind for begin, kind in _KINDS if died_at.startswith(begin))


def _row(kind: str, episodes: Sequence[Episode]) -> tuple[str, ...]:
    takeovers = sum(episode.plan.is_takeover for episode in episodes)
    ends = Counter(end for episode in episodes for end in episode.end.split(", "))
    found = [episode.findings for episode in episodes]
    seconds = [episode.seconds for episode in episodes]
    return (
        kind,
        str(sum(episode.kills for episode in episodes)),
        f"{len(episodes) - takeovers} / {takeovers}",
        ", ".join(f"{end} {count}" for end, count in ends.most_common()),
        f"{sum(each.with_effect for each in found)} of {sum(each.steps for each in found)}",
        str(sum(each.tried_anew for each in found)),
        str(sum(each.repeated for each in found)),
        f"{statistics.median(seconds):.1f}, {max(seconds):.1f}",
        str(sum(len(episode.complaints) for episode in episodes)),
    )
