"""What the road needs from outside, as Protocols. Edges implement them; `wiring` puts them together."""

from bot.ports.cloud import MOST_LISTED, TASKS_A_PAGE, CloudChanges, CloudReads, CloudWords, Purpose
from bot.ports.leases import LEASE_SECONDS, RENEW_SECONDS, Lease, Leases, Renewal, of_delivery, of_lane, of_proposal
from bot.ports.people import Notifier, People, Person
from bot.ports.sightings import Found, FoundFirmware, FoundJob, Reading, Readings, Watched
from bot.ports.slots import LONGEST_HOLD_SECONDS, Claim, Freed, Lane, Slot, Slots
from bot.ports.store import Owed, OwedLane, Saved, Store, Surface, Transition

__all__ = [
    "LEASE_SECONDS",
    "LONGEST_HOLD_SECONDS",
    "MOST_LISTED",
    "RENEW_SECONDS",
    "TASKS_A_PAGE",
    "Claim",
    "CloudChanges",
    "CloudReads",
    "CloudWords",
    "Found",
    "FoundFirmware",
    "FoundJob",
    "Freed",
    "Lane",
    "Lease",
    "Leases",
    "Notifier",
    "Owed",
    "OwedLane",
    "People",
    "Person",
    "Purpose",
    "Reading",
    "Readings",
    "Renewal",
    "Saved",
    "Slot",
    "Slots",
    "Store",
    "Surface",
    "Transition",
    "Watched",
    "of_delivery",
    "of_lane",
    "of_proposal",
]
