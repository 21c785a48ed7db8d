"""The operations, one file a noun. This is the folder touched to add one."""

from bot.operations import Operations
from bot.ops import devices, firmware, jobs

KNOWN = Operations.of((*jobs.OPERATIONS, *firmware.OPERATIONS, *devices.OPERATIONS))
