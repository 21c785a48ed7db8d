"""What the simulated cloud keeps besides rollouts: instances, products, packages, its refusals, and what calls did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class FleetRefusal(Exception):
    """The IoT service says no: `code` and `message` as it would write them."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class SandboxInstance:
    """An IoT instance; an empty id is the public instance, for which no IotInstanceId is sent."""

    instance_id: str
    name: str
    region: str


@dataclass(frozen=True, slots=True)
class Product:
    product_key: str
    name: str


@dataclass(frozen=True, slots=True)
class Firmware:
    """An update package. Sizes are bytes, times seconds since the epoch; `files` are the names of several files."""

    firmware_id: str
    instance_id: str
    product_key: str
    name: str
    dest_version: str
    src_version: str = ""
    description: str = ""
    size: int = 0
    sign: str = ""
    status: int = 1
    is_delta: bool = False
    module_name: str = "default"
    created_at: float = 0.0
    udi: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks: the instance that the call names (None: any), and what is to stand in the history."""

    instance_id: str | None = None
    request_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effect:
    """A change that was accepted; `tasks` is how many tasks it changed. Its devices and tasks stand in `params`."""

    at: float
    action: str
    job_id: str
    request_id: str
    params: Mapping[str, str] = field(default_factory=dict)
    tasks: int = 0
