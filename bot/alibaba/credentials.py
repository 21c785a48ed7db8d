"""An access key of Alibaba Cloud, and how one that is written out stands in the environment.

Only keys and STS tokens as they are: what has to be fetched (roles, profiles, services) is in `key_settings`. The
environment itself is read by `bot.settings`, which passes it here as a mapping. Names of the variables: those of
Alibaba's own SDKs, and the same with an instance's prefix instead of ``ALIBABA_CLOUD``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.errors import ConfigurationError

DEFAULT_PREFIX = "ALIBABA_CLOUD"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One access key. Its repr shows the id alone, so that no log can hold more."""

    key_id: str
    secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def credentials_from(environ: Mapping[str, str], prefix: str | None) -> Credentials:
    """The key under ``{prefix}_ACCESS_KEY_ID``, ``…_SECRET`` and, for STS, ``{prefix}_SECURITY_TOKEN``.

    Raises `ConfigurationError` with a sentence for each variable that is missing, empty or damaged.
    """
    stem = prefix or DEFAULT_PREFIX
    key_id, secret, token = (
        environ.get(f"{stem}_{name}", "").strip() for name in ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN")
    )
    problems = [
        f"{stem}_{name} is not set: set it to {meaning} of a RAM user that may make OTA calls."
        for name, meaning, value in (
            ("ACCESS_KEY_ID", "the AccessKey id", key_id),
            ("ACCESS_KEY_SECRET", "the AccessKey secret", secret),
        )
        if not value
    ]
    problems += [
        f"{stem}_{name} holds a space or a character that no key has: copy it again."
        for name, value in (("ACCESS_KEY_ID", key_id), ("ACCESS_KEY_SECRET", secret), ("SECURITY_TOKEN", token))
        if not all("!" <= character <= "~" for character in value)
    ]
    if problems:
        raise ConfigurationError(problems)
    return Credentials(key_id, secret, token or None)
