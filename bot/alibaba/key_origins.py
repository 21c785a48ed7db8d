"""Where a key comes from, as values: a key itself, a role taken with a key, a service that hands keys out, a profile.

Nothing is fetched or read here, and no secret stands in a `str` or a `repr`. The kinds are those of Alibaba's tools:
https://www.alibabacloud.com/help/en/sdk/developer-reference/v2-manage-python-access-credentials
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bot.alibaba.credentials import Credentials

SESSION_NAME = "otabrake"
"""What our sessions are called in the account's own audit trail, where nobody names them otherwise."""

SESSION_SECONDS = 3600


def sts_host(region: str = "", *, is_inside_vpc: bool = False) -> str:
    """The host of the service that gives a role's keys: the central one, or that of a region."""
    return f"{'sts-vpc' if is_inside_vpc else 'sts'}.{region}.aliyuncs.com" if region else "sts.aliyuncs.com"


@dataclass(frozen=True, slots=True)
class RoleKey:
    """A RAM role, taken with another key."""

    role_arn: str
    base: Origin
    session: str = SESSION_NAME
    sts: str = field(default_factory=sts_host)
    seconds: int = SESSION_SECONDS
    policy: str | None = None
    external_id: str | None = None

    def __str__(self) -> str:
        return f"RAM role {self.role_arn}"


@dataclass(frozen=True, slots=True)
class OidcKey:
    """A RAM role, taken with the token that an identity provider keeps in a file (in a cluster: RRSA)."""

    role_arn: str
    provider_arn: str
    token_file: str
    session: str = SESSION_NAME
    sts: str = field(default_factory=sts_host)
    seconds: int = SESSION_SECONDS
    policy: str | None = None

    def __str__(self) -> str:
        return f"RAM role {self.role_arn} by OIDC"


@dataclass(frozen=True, slots=True)
class EcsKey:
    """The RAM role of the ECS machine that we run on. `only_hardened`: ask its metadata service with a token only."""

    role: str
    only_hardened: bool = False

    def __str__(self) -> str:
        return f"ECS RAM role {self.role}"


@dataclass(frozen=True, slots=True)
class UriKey:
    """An address that answers with a key. Its repr does not show it: there may be a password in it."""

    uri: str = field(repr=False)

    def __str__(self) -> str:
        return "the credentials URI"


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """A profile of Alibaba's command line under `home`, or a section of a credentials file (of `file`, if given)."""

    name: str
    home: Path
    file: Path | None = None

    def __str__(self) -> str:
        return f"profile {self.name}"


@dataclass(frozen=True, slots=True)
class CliKey:
    """A profile of Alibaba's command line whose kind only Alibaba's package can read (CloudSSO, OAuth, External)."""

    name: str
    file: Path

    def __str__(self) -> str:
        return f"profile {self.name}"


Origin = Credentials | RoleKey | OidcKey | EcsKey | UriKey | ProfileKey | CliKey
