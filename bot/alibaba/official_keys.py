"""Keys that have to be fetched, by Alibaba's own package (the extra ``cloud-credentials``), loaded on first use.

Its providers are used one by one and told everything: its chain of guesses, what it reads of the environment when it is
imported, its background thread and its log are not used. Everything here blocks, and belongs in a thread. Its errors
quote answers that may hold keys, so only a status, a code and a request id are taken from them.
https://github.com/aliyun/credentials-python
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Protocol

from bot.alibaba.credentials import Credentials
from bot.alibaba.key_origins import CliKey, EcsKey, OidcKey, Origin, ProfileKey, RoleKey, UriKey
from bot.alibaba.key_sources import FetchedKey, KeyUnavailable
from bot.alibaba.profiles import read_profile

PACKAGE = "alibabacloud_credentials"

_STATUS = re.compile(r"http_?code\W{1,4}(\d{3})", re.IGNORECASE)
_CODE = re.compile(r'"Code"\s*:\s*"([A-Za-z0-9_.]{1,80})"', re.IGNORECASE)
_REQUEST_ID = re.compile(r'"RequestId"\s*:\s*"([A-Za-z0-9-]{1,64})"', re.IGNORECASE)


class _Found(Protocol):
    def get_access_key_id(self) -> str | None: ...
    def get_access_key_secret(self) -> str | None: ...
    def get_security_token(self) -> str | None: ...
    def get_expiration(self) -> int | None: ...


class _Provider(Protocol):
    def get_credentials(self) -> _Found: ...


class OfficialKey:
    """Fetches the key of `origin` at each call. After a failure all is read anew, so that a mended file helps."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._provider: _Provider | None = None

    def __call__(self) -> FetchedKey:
        """Raises `KeyUnavailable`."""
        try:
            if self._provider is None:
                self._provider = _provider_of(self._origin)
            return _key_of(self._provider.get_credentials())
        except KeyUnavailable:
            self._provider = None
            raise
        except Exception as error:
            self._provider = None
            raise KeyUnavailable(_why(error)) from None


def _provider_of(origin: Origin) -> _Provider:
    """Every value is given: for one that is empty the package would take the process's own environment."""
    import alibabacloud_credentials.provider as official
    from alibabacloud_credentials.http import HttpOptions

    _silence()
    provider: _Provider
    match origin:
        case ProfileKey():
            return _provider_of(read_profile(origin))
        case Credentials(key_id, secret, None):
            provider = official.StaticAKCredentialsProvider(access_key_id=key_id, access_key_secret=secret)
        case Credentials(key_id, secret, token):
            provider = official.StaticSTSCredentialsProvider(
                access_key_id=key_id, access_key_secret=secret, security_token=token
            )
        case RoleKey():
            provider = official.RamRoleArnCredentialsProvider(
                credentials_provider=_provider_of(origin.base),
                role_arn=origin.role_arn,
                role_session_name=origin.session,
                duration_seconds=origin.seconds,
                policy=origin.policy,
                external_id=origin.external_id,
                sts_endpoint=origin.sts,
            )
        case OidcKey():
            provider = official.OIDCRoleArnCredentialsProvider(
                role_arn=origin.role_arn,
                oidc_provider_arn=origin.provider_arn,
                oidc_token_file_path=origin.token_file,
                role_session_name=origin.session,
                duration_seconds=origin.seconds,
                policy=origin.policy,
                sts_endpoint=origin.sts,
            )
        case EcsKey():
            provider = official.EcsRamRoleCredentialsProvider(
                role_name=origin.role,
                disable_imds_v1=origin.only_hardened,
                http_options=HttpOptions(connect_timeout=2000, read_timeout=5000),
                async_update_enabled=False,
            )
        case UriKey():
            provider = official.URLCredentialsProvider(uri=origin.uri)
        case CliKey():
            provider = official.CLIProfileCredentialsProvider(profile_name=origin.name, profile_file=str(origin.file))
    return provider


def _silence() -> None:
    """What the package logs quotes answers and requests, and what it says of worth reaches us as errors."""
    for name in ("credentials", "alibabacloud-tea"):
        logger = logging.getLogger(name)
        logger.disabled = True
        logger.handlers.clear()
    # Its debug lines hold whole URLs, and those of STS hold key id, token and signature.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _key_of(found: _Found) -> FetchedKey:
    key_id, secret = found.get_access_key_id(), found.get_access_key_secret()
    if not key_id or not secret:
        raise KeyUnavailable("the answer holds no key")
    end = found.get_expiration()
    return FetchedKey(
        Credentials(key_id, secret, found.get_security_token() or None),
        datetime.fromtimestamp(end, UTC) if end is not None else None,
    )


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read ({type(error).__name__})"
    text = str(error)
    status, code, request_id = (pattern.search(text) for pattern in (_STATUS, _CODE, _REQUEST_ID))
    said = ([f"HTTP {status[1]}"] if status else []) + ([code[1]] if code and code[1] != "Success" else [])
    if said:
        return f"refused with {', '.join(said)}" + (f" (RequestId {request_id[1]})" if request_id else "")
    cause = error.__context__ if type(error).__name__ == "RetryError" else None
    return f"no usable answer ({type(cause or error).__name__})"
