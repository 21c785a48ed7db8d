"""Which key an instance has, read off the variables under its prefix.

One kind for each prefix; two are an error that names them, because a brake must not guess whose key it pulls with:

1. ``ACCESS_KEY_ID``, ``ACCESS_KEY_SECRET`` [``SECURITY_TOKEN``]: that key
2. ``OIDC_PROVIDER_ARN``, ``OIDC_TOKEN_FILE`` and ``ROLE_ARN``: the role, by the token in the file
3. ``PROFILE``, ``CREDENTIALS_FILE``: a profile of Alibaba's command line, or a section of a credentials file
4. ``ECS_METADATA``: the RAM role of that name, of the machine that we run on
5. ``CREDENTIALS_URI``: what that address answers

``ROLE_ARN`` beside 1, 3, 4 or 5 takes that role with the key found there. All but the first alone need the extra
``cloud-credentials``. No key is fetched here. The names are Alibaba's own (``ALIBABA_CLOUD_…``), under any prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from bot.alibaba.credentials import DEFAULT_PREFIX, Credentials, credentials_from
from bot.alibaba.key_origins import (
    SESSION_NAME,
    EcsKey,
    OidcKey,
    Origin,
    ProfileKey,
    RoleKey,
    UriKey,
    sts_host,
)
from bot.alibaba.key_sources import KeySource, RefreshedKey, StaticKey
from bot.alibaba.official_keys import PACKAGE, OfficialKey
from bot.errors import ConfigurationError
from bot.model import Instance

_KINDS = {
    "key": ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN"),
    "oidc": ("OIDC_PROVIDER_ARN", "OIDC_TOKEN_FILE"),
    "profile": ("PROFILE", "CREDENTIALS_FILE"),
    "ecs": ("ECS_METADATA",),
    "uri": ("CREDENTIALS_URI",),
}
_OIDC_NEEDS = ("ROLE_ARN", "OIDC_PROVIDER_ARN", "OIDC_TOKEN_FILE")
_METADATA_OFF = "ALIBABA_CLOUD_ECS_METADATA_DISABLED"


def keys_from(
    environ: Mapping[str, str],
    instances: Mapping[str, Instance],
    *,
    now: Callable[[], datetime],
    on_trouble: Callable[[str], None],
) -> dict[str, KeySource]:
    """The source of each instance's key, by its name; instances with one prefix share one source.

    Raises `ConfigurationError` with what is wrong for any of them.
    """
    if problems := key_problems(environ, instances):
        raise ConfigurationError(problems)
    prefixes = {each.credentials for each in instances.values()}
    sources = {each: key_source_from(environ, each, now=now, on_trouble=on_trouble) for each in prefixes}
    return {name: sources[each.credentials] for name, each in instances.items()}


def key_problems(environ: Mapping[str, str], instances: Mapping[str, Instance]) -> list[str]:
    """What is wrong with the variables of these instances, each problem once."""
    problems: dict[str, None] = {}
    for instance in instances.values():
        try:
            origin_from(environ, instance.credentials)
        except ConfigurationError as error:
            problems |= dict.fromkeys(error.problems)
    return list(problems)


def key_source_from(
    environ: Mapping[str, str],
    prefix: str | None,
    *,
    now: Callable[[], datetime],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_trouble: Callable[[str], None] = lambda why: None,
) -> KeySource:
    """The source of the key under `prefix`. Nothing is fetched yet. Raises `ConfigurationError` as `origin_from`."""
    origin = origin_from(environ, prefix)
    if isinstance(origin, Credentials):
        return StaticKey(origin)
    return RefreshedKey(OfficialKey(origin), origin=str(origin), now=now, sleep=sleep, on_trouble=on_trouble)


def origin_from(environ: Mapping[str, str], prefix: str | None) -> Origin:
    """Where the key under `prefix` comes from. Raises `ConfigurationError` with every problem, one sentence each."""
    read = _Variables(environ, prefix or DEFAULT_PREFIX)
    kinds = {kind: [name for name in names if read(name)] for kind, names in _KINDS.items()}
    kinds = {kind: names for kind, names in kinds.items() if names} or {"key": []}
    problems = [*_contradictions(read, kinds), *_problems(read, kinds)]
    origin: Origin | None = None
    try:
        origin = _origin(read, next(iter(kinds)))
    except ConfigurationError as error:
        problems += error.problems
    if origin is None or problems:
        raise ConfigurationError(problems)
    return origin


class _Variables:
    """The variables under one prefix, by the rest of their names."""

    def __init__(self, environ: Mapping[str, str], stem: str) -> None:
        self.environ = environ
        self.stem = stem

    def __call__(self, name: str) -> str:
        return self.environ.get(self.full(name), "").strip()

    def full(self, name: str) -> str:
        return f"{self.stem}_{name}"

    def is_on(self, name: str) -> bool:
        return self(name).casefold() == "true"


def _contradictions(read: _Variables, kinds: Mapping[str, list[str]]) -> list[str]:
    if len(kinds) < 2:
        return []
    given = [read.full(name) for names in kinds.values() for name in names]
    return [
        f"{', '.join(given[:-1])} and {given[-1]} name keys of {len(kinds)} kinds: keep those of one and unset the "
        "others, or give the instance a prefix of its own in the policy (credentials: NAME)."
    ]


def _problems(read: _Variables, kinds: Mapping[str, list[str]]) -> list[str]:
    problems = []
    role = read("ROLE_ARN")
    if role and not role.startswith("acs:ram::"):
        problems.append(f"{read.full('ROLE_ARN')} must be the ARN of a RAM role: acs:ram::<account>:role/<name>.")
    if "oidc" in kinds:
        needed = " and ".join(read.full(name) for name in _OIDC_NEEDS)
        problems += [
            f"{read.full(name)} is not set: a role by OIDC needs {needed}." for name in _OIDC_NEEDS if not read(name)
        ]
    if "uri" in kinds and not _is_address(read("CREDENTIALS_URI")):
        problems.append(f"{read.full('CREDENTIALS_URI')} must be an http:// or https:// address.")
    if "ecs" in kinds and read.environ.get(_METADATA_OFF, "").strip().casefold() == "true":
        problems.append(f"{read.full('ECS_METADATA')} needs the metadata service, which {_METADATA_OFF} forbids.")
    beyond = [name for kind, names in kinds.items() if kind != "key" for name in names]
    beyond = beyond or (["ROLE_ARN"] if role else [])
    if beyond and find_spec(PACKAGE) is None:
        problems.append(
            f"{read.full(beyond[0])} needs a package that is missing: pip install 'otabrake[cloud-credentials]'."
        )
    return problems


def _is_address(uri: str) -> bool:
    try:
        url = urlsplit(uri)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _origin(read: _Variables, kind: str) -> Origin:
    """Raises `ConfigurationError` where the key itself is missing or damaged."""
    session = read("ROLE_SESSION_NAME") or SESSION_NAME
    sts = sts_host(read("STS_REGION"), is_inside_vpc=read.is_on("VPC_ENDPOINT_ENABLED"))
    role = read("ROLE_ARN")
    if kind == "oidc":
        return OidcKey(role, read("OIDC_PROVIDER_ARN"), read("OIDC_TOKEN_FILE"), session=session, sts=sts)
    base = _base(read, kind)
    return RoleKey(role, base, session=session, sts=sts) if role else base


def _base(read: _Variables, kind: str) -> Origin:
    if kind == "profile":
        home = Path(read.environ.get("HOME") or Path.home())
        file = read("CREDENTIALS_FILE")
        return ProfileKey(read("PROFILE") or "default", home, Path(file) if file else None)
    if kind == "ecs":
        return EcsKey(read("ECS_METADATA"), only_hardened=read.is_on("IMDSV1_DISABLED"))
    if kind == "uri":
        return UriKey(read("CREDENTIALS_URI"))
    return credentials_from(read.environ, read.stem)
