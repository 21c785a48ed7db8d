"""The profiles of Alibaba's command line (``~/.aliyun/config.json``) and its credentials files, as origins of keys.

Read here and not by Alibaba's package, which cuts a value of a credentials file at a ``#`` and starts a thread for the
role of a machine. What only that package can do (a login in a browser, an external program) is left to it. Nothing is
written. https://www.alibabacloud.com/help/en/cli/configure-credentials
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from bot.alibaba.credentials import Credentials
from bot.alibaba.key_origins import (
    SESSION_NAME,
    SESSION_SECONDS,
    CliKey,
    EcsKey,
    OidcKey,
    Origin,
    ProfileKey,
    RoleKey,
    sts_host,
)
from bot.alibaba.key_sources import KeyUnavailable

_MAX_CHAIN = 5
_PACKAGES_OWN = ("CloudSSO", "OAuth", "External")

# What the command line calls its fields and kinds, in the words of a credentials file.
_INI_NAMES = {
    "mode": "type",
    "ram_role_arn": "role_arn",
    "ram_role_name": "role_name",
    "ram_session_name": "role_session_name",
    "oidc_token_file": "oidc_token_file_path",
}
_INI_MODES = {"access_key": "AK", "ecs_ram_role": "EcsRamRole", "oidc_role_arn": "OIDC", "ram_role_arn": "RamRoleArn"}


def read_profile(profile: ProfileKey) -> Origin:
    """What a profile names. The command line's comes first, unless a file is given. Raises `KeyUnavailable`."""
    cli = profile.home / ".aliyun" / "config.json"
    ini = profile.file or profile.home / ".alibabacloud" / "credentials.ini"
    if profile.file is None and cli.is_file():
        named = _cli_profiles(cli)
        if profile.name in named:
            return _of_cli(named, profile.name, cli, depth=0)
    sections = _ini_sections(ini) if profile.file is not None or ini.is_file() else {}
    if profile.name in sections:
        return _of_ini(sections[profile.name], profile.name)
    where = ini if profile.file is not None else f"{cli} or {ini}"
    raise KeyUnavailable(f"there is no profile {profile.name} in {where}")


def _cli_profiles(file: Path) -> dict[str, Mapping[str, object]]:
    try:
        config = json.loads(_text(file))
        profiles = [profile for profile in config["profiles"] if isinstance(profile, dict)]
    except (ValueError, KeyError, TypeError):
        raise KeyUnavailable(f"{file} is not a file of Alibaba's command line") from None
    return {str(profile.get("name")): profile for profile in profiles}


def _ini_sections(file: Path) -> dict[str, Mapping[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(file))
    except (ValueError, configparser.Error):
        raise KeyUnavailable(f"{file} is not a credentials file") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise KeyUnavailable(f"{file} cannot be read ({type(error).__name__})") from None


def _of_cli(named: Mapping[str, Mapping[str, object]], name: str, file: Path, *, depth: int) -> Origin:
    fields = _Fields(named[name], name)
    mode = fields.text("mode")
    if mode in _PACKAGES_OWN:
        return CliKey(name, file)
    if mode != "ChainableRamRoleArn":
        return _of_fields(fields, mode)
    source = fields.need("source_profile")
    if source not in named or depth >= _MAX_CHAIN:
        raise KeyUnavailable(f"profile {name} builds on profile {source}, which does not lead to a key")
    return fields.role(_of_cli(named, source, file, depth=depth + 1))


def _of_ini(section: Mapping[str, object], name: str) -> Origin:
    fields = _Fields(section, name, spelt=_INI_NAMES)
    return _of_fields(fields, _INI_MODES.get(fields.text("mode"), ""))


def _of_fields(fields: _Fields, mode: str) -> Origin:
    match mode:
        case "AK":
            return fields.key()
        case "StsToken":
            return replace(fields.key(), security_token=fields.need("sts_token"))
        case "EcsRamRole":
            return EcsKey(fields.need("ram_role_name"))
        case "OIDC":
            return fields.oidc()
        case "RamRoleArn":
            return fields.role(fields.key())
    raise KeyUnavailable(f"profile {fields.profile} is of a kind that is not known: {fields.text('mode') or 'none'}")


class _Fields:
    """The fields of one profile by the command line's names, `spelt` otherwise in a credentials file."""

    def __init__(
        self, fields: Mapping[str, object], profile: str, *, spelt: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._fields = fields
        self._spelt = spelt
        self.profile = profile

    def text(self, name: str) -> str:
        value = self._fields.get(self._spelt.get(name, name))
        return str(value).strip() if isinstance(value, str | int) else ""

    def need(self, name: str) -> str:
        if not (found := self.text(name)):
            raise KeyUnavailable(f"profile {self.profile} has no {self._spelt.get(name, name)}")
        return found

    def key(self) -> Credentials:
        return Credentials(self.need("access_key_id"), self.need("access_key_secret"))

    def role(self, base: Origin) -> RoleKey:
        return RoleKey(
            self.need("ram_role_arn"),
            base,
            session=self._session(),
            sts=self._sts(),
            seconds=self._seconds(),
            policy=self.text("policy") or None,
            external_id=self.text("external_id") or None,
        )

    def oidc(self) -> OidcKey:
        return OidcKey(
            self.need("ram_role_arn"),
            self.need("oidc_provider_arn"),
            self.need("oidc_token_file"),
            session=self._session(),
            sts=self._sts(),
            seconds=self._seconds(),
            policy=self.text("policy") or None,
        )

    def _session(self) -> str:
        return self.text("ram_session_name") or self.text("role_session_name") or SESSION_NAME

    def _sts(self) -> str:
        return sts_host(self.text("sts_region"), is_inside_vpc=self.text("enable_vpc").casefold() == "true")

    def _seconds(self) -> int:
        text = self.text("expired_seconds")
        return int(text) if text.isascii() and text.isdigit() and int(text) else SESSION_SECONDS
