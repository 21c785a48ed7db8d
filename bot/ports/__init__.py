"""What the road needs from outside, as Protocols. Edges implement them; `wiring` puts them together."""

from bot.ports.cloud import MOST_LISTED, TASKS_A_PAGE, CloudChanges, CloudReads, CloudWords, Purpose
from bot.ports.people import Notifier, People, Person
from bot.ports.sightings import Found, FoundFirmware, FoundJob, Reading, Readings, Watched
from bot.ports.slots import LONGEST_HOLD_SECONDS, Claim, Freed, Lane, Slot, Slots
from bot.ports.store import Owed, Store, Surface, Transition

__all__ = [
    "LONGEST_HOLD_SECONDS",
    "MOST_LISTED",
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
    "Notifier",
    "Owed",
    "People",
    "Person",
    "Purpose",
    "Reading",
    "Readings",
    "Slot",
    "Slots",
    "Store",
    "Surface",
    "Transition",
    "Watched",
]
