"""`/metrics`: what happened, counted, and how much waits, in Prometheus' text format. On a port of its own.

Labels have few values by construction: no job, person, channel or id is one. Counters and histograms are of this
process since its start; what is read from the database is the same from every replica, but for the leases.
https://prometheus.io/docs/practices/naming/, https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bot.ports.telemetry import (
    Acknowledged,
    AckResult,
    CallMade,
    Claimed,
    Happening,
    LeaseTaken,
    Posted,
    PostResult,
    Received,
    TurnedAway,
    WorkFailed,
    Written,
)
from bot.proposals import Proposal, State
from bot.storage.census import LEASE_KINDS, Census, DatabaseWatch
from bot.storage.tables import SCHEMA
from bot.telemetry import effect_of, kind_of, spans_of

ACK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3)
"""Slack waits three seconds."""

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STAGE_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800)
MOST_VALUES = 100
"""A label has no more values than this; what would be one more is counted as "other"."""

FAILED_HERE = 1_000
_UNFINISHED = [state.value for state in State if state is not State.FINISHED]


def version() -> str:
    """Of the installed package."""
    try:
        return installed_version("otabrake")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """A `Telemetry` that counts, with a registry of its own; `app` serves it. `build` is told as it is."""

    def __init__(self, watch: DatabaseWatch, *, clock: Callable[[], datetime], build: Mapping[str, str]) -> None:
        self._watch = watch
        self._registry = registry = CollectorRegistry()
        self._stock = _Stock(clock, build)
        registry.register(self._stock)
        ProcessCollector(registry=registry)
        self._codes, self._operations = _Few(), _Few()
        self._failed: dict[str, None] = {}
        self._ack_series: dict[tuple[str, AckResult], tuple[Counter, Histogram]] = {}
        self._make_counters(registry)
        self._takers: Mapping[type, Callable[[Any], None]] = {
            TurnedAway: self._turned_away,
            Acknowledged: self._acknowledged,
            Received: self._received,
            Written: self._written,
            Claimed: self._claimed,
            WorkFailed: self._work_failed,
            LeaseTaken: self._lease_taken,
            CallMade: self._called,
            Posted: self._posted,
        }
        self.app: ASGIApp = Starlette(routes=[Route("/metrics", self._serve)])

    def _make_counters(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"otabrake_{name}", help_text, labels, registry=registry)

        def histogram(name: str, help_text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"otabrake_{name}_seconds", help_text, labels, buckets=buckets, registry=registry)

        self._acks = counter("acks", "Deliveries of Slack that were acknowledged.", "kind", "result")
        self._ack_seconds = histogram(
            "ack", "From the arrival of a delivery to its acknowledgement.", "kind", buckets=ACK_BUCKETS
        )
        self._duplicates = counter("duplicates", "Deliveries that had come before.", "kind")
        self._refusals = counter("gate_refusals", "Requests that ended at the gate.", "why")
        self._decisions = counter("decisions", "What the policy said.", "operation", "effect")
        self._outcomes = counter("outcomes", "How proposals ended.", "operation", "code")
        self._stages = histogram(
            "proposal_stage", "How long finished proposals took, by stage.", "stage", buckets=STAGE_BUCKETS
        )
        self._calls = counter("api_calls", "Signed calls, and those that were not made.", "action", "code")
        self._call_seconds = histogram(
            "api_call", "From sending a signed call to its answer.", "action", buckets=CALL_BUCKETS
        )
        self._waits = histogram(
            "api_slot_wait", "For how long a signed call waited for its slot.", "action", buckets=CALL_BUCKETS
        )
        self._throttled = counter("api_throttled", "Signed calls that the cloud throttled.", "action")
        self._posts = counter("posts", "Attempts to deliver a post to Slack.", "result")
        self._takeovers = counter("takeovers", "Work of others that this process took over.", "kind")
        self._lost = counter("leases_lost", "Work of this process that others took over.", "kind")
        self._failures = counter("work_failures", "Work that failed for a reason of our own.", "kind")
        # What may happen seldom is 0 until it does: an alert sees its first time only so.
        for rare in (self._takeovers, self._lost, self._failures):
            for kind in LEASE_KINDS:
                rare.labels(kind)
        for result in PostResult:
            self._posts.labels(result.value)

    def note(self, happening: Happening) -> None:
        self._takers[type(happening)](happening)

    async def _serve(self, request: Request) -> Response:
        """What is known: without an answer of the database, the rest."""
        self._stock.census = await self._watch.census()
        return Response(generate_latest(_WithoutCreated(self._registry)), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def _turned_away(self, what: TurnedAway) -> None:
        if what.status >= 400:  # what Slack asks to see whether we are there is no refusal
            self._refusals.labels(what.why).inc()

    def _acknowledged(self, what: Acknowledged) -> None:
        kind = kind_of(what.delivery) if what.delivery is not None else what.kind
        series = self._ack_series.get((kind, what.result))
        if series is None:  # looked up once: finding a series by its labels costs more than counting
            series = (self._acks.labels(kind, what.result.value), self._ack_seconds.labels(kind))
            self._ack_series[kind, what.result] = series
        count, seconds = series
        count.inc()
        seconds.observe(what.seconds)

    def _received(self, what: Received) -> None:
        if not what.is_new:
            self._duplicates.labels(kind_of(what.delivery)).inc()

    def _written(self, what: Written) -> None:
        after = what.transition.after if what.transition is not None else None
        for entry in what.entries:
            if (effect := effect_of(entry)) is not None:
                told = after.operation if after is not None else str(entry.facts.get("operation") or "unknown")
                self._decisions.labels(self._operations.one_of(told), effect).inc()
        if after is not None and after.state is State.FINISHED:
            self._ended(after)

    def _ended(self, proposal: Proposal) -> None:
        if proposal.outcome is not None:
            self._outcomes.labels(self._operations.one_of(proposal.operation), proposal.outcome.code.value).inc()
        for stage, seconds in spans_of(proposal).items():
            self._stages.labels(stage).observe(seconds)

    def _claimed(self, what: Claimed) -> None:
        """A token above 1 says that whoever had the lease did not give it back; if that was us, because we failed."""
        name = what.lease.name
        if name in self._failed:
            del self._failed[name]
        elif what.lease.token > 1:
            self._takeovers.labels(_kind(name)).inc()

    def _work_failed(self, what: WorkFailed) -> None:
        self._failures.labels(_kind(what.lease.name)).inc()
        self._failed[what.lease.name] = None
        if len(self._failed) > FAILED_HERE:
            del self._failed[next(iter(self._failed))]

    def _lease_taken(self, what: LeaseTaken) -> None:
        self._lost.labels(_kind(what.lease.name)).inc()

    def _called(self, what: CallMade) -> None:
        self._calls.labels(what.action, self._codes.one_of(what.family)).inc()
        self._waits.labels(what.action).observe(what.waited_seconds)
        if what.seconds is not None:
            self._call_seconds.labels(what.action).observe(what.seconds)
        if what.is_throttled:
            self._throttled.labels(what.action).inc()

    def _posted(self, what: Posted) -> None:
        self._posts.labels(what.result.value).inc()


def _kind(lease_name: str) -> str:
    kind = lease_name.partition(":")[0]
    return kind if kind in LEASE_KINDS else "other"


class _Few:
    """The values of a label whose texts come from outside."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def one_of(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= MOST_VALUES:
                return "other"
            self._known.add(value)
        return value


class _Stock(Collector):
    """What is there at the moment of the scrape."""

    def __init__(self, clock: Callable[[], datetime], build: Mapping[str, str]) -> None:
        self._clock = clock
        self._build = dict(build)
        self.census: Census | None = None

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("otabrake_build", "What runs here.", value=self._build)
        census = self.census
        yield _gauge("database_up", "Whether the database answers.", float(census is not None))
        if census is None or census.revision != SCHEMA:  # of another schema nothing was counted
            return
        proposals = _gauge("proposals", "Proposals that are not finished.", label="state")
        for state in _UNFINISHED:
            proposals.add_metric([state], census.proposals.get(state, 0))
        yield proposals
        yield _gauge("outbox_posts", "Posts that are owed to people.", census.owed)
        since = census.owed_since
        lag = max(0.0, (self._clock() - since).total_seconds()) if since is not None else 0.0
        yield _gauge("outbox_lag_seconds", "The age of the oldest post that is owed.", lag)
        held = _gauge("leases_held", "Work that this process holds.", label="kind")
        for kind in LEASE_KINDS:
            held.add_metric([kind], census.leases.get(kind, 0))
        yield held


def _gauge(name: str, help_text: str, value: float | None = None, *, label: str | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"otabrake_{name}", help_text, value=value, labels=[label] if label else None)


class _WithoutCreated(Collector):
    """A registry without the times at which its series began: they would double their number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
