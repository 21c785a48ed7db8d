"""The settings: one frozen value, read from the environment once, with every problem named at once.

This is the only reader of the environment. Names are those that others depend on (README, "Settings").
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from bot.errors import ConfigurationError

DEFAULT_DATABASE_URL = "sqlite:///otabrake.db"
DEFAULT_API_URL = "https://slack.com/api/"
_OWN = ("OTABRAKE_DATABASE_URL", "OTABRAKE_POLICIES", "OTABRAKE_AUDIT_CHANNEL")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `otabrake serve` runs with. Secrets stay out of its repr.

    `environ` is what the environment held, kept for the credentials that the policy's instances name.
    """

    slack_bot_token: str = field(repr=False)
    slack_signing_secret: str | None = field(default=None, repr=False)
    slack_app_token: str | None = field(default=None, repr=False)
    slack_app_id: str | None = None
    slack_api_url: str = DEFAULT_API_URL
    database_url: str = field(default=DEFAULT_DATABASE_URL, repr=False)
    policies: Path = Path("policies")
    audit_channel: str | None = None
    host: str = "127.0.0.1"
    port: int = 3000
    metrics_port: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_socket_mode(self) -> bool:
        return self.slack_app_token is not None


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. Raises `ConfigurationError` with every problem, one sentence each."""
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    problems = [*_near_misses(given), *_slack_problems(given), *_address_problems(given)]
    if problems:
        raise ConfigurationError(problems)
    return Settings(
        slack_bot_token=given["SLACK_BOT_TOKEN"],
        slack_signing_secret=given.get("SLACK_SIGNING_SECRET"),
        slack_app_token=given.get("SLACK_APP_TOKEN"),
        slack_app_id=given.get("SLACK_APP_ID"),
        slack_api_url=given.get("SLACK_API_URL", DEFAULT_API_URL).rstrip("/") + "/",
        database_url=database_url(given),
        policies=Path(given.get("OTABRAKE_POLICIES", "policies")),
        audit_channel=given.get("OTABRAKE_AUDIT_CHANNEL"),
        host=given.get("HOST", "127.0.0.1"),
        port=int(given.get("PORT", "3000")),
        metrics_port=int(given["METRICS_PORT"]) if "METRICS_PORT" in given else None,
        environ=given,
    )


def database_url(environ: Mapping[str, str]) -> str:
    """The database's URL in SQLAlchemy's spelling (`postgres://` and `postgresql://` mean psycopg)."""
    url = environ.get("OTABRAKE_DATABASE_URL", "").strip() or DEFAULT_DATABASE_URL
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in ("postgres", "postgresql") else url


def database_problems(environ: Mapping[str, str]) -> list[str]:
    url = database_url(environ)
    if not url.startswith(("sqlite:///", "postgresql+psycopg://")) or url == "sqlite:///":
        return ["OTABRAKE_DATABASE_URL must begin with sqlite:/// and a file, or with postgresql:// or postgres://."]
    try:
        parts = urlsplit(url)
        is_odd = url.startswith("postgresql") and (
            url.count("@") > 1 or not (parts.hostname or parts.query) or parts.port == 0
        )
    except ValueError:
        is_odd = True
    if is_odd:
        return ["OTABRAKE_DATABASE_URL cannot be read: write @, : and / in a password as %40, %3A and %2F."]
    if url.startswith("postgresql") and find_spec("psycopg") is None:
        return ["OTABRAKE_DATABASE_URL names PostgreSQL, whose driver is missing: pip install 'otabrake[postgres]'."]
    return []


def _port_problems(given: Mapping[str, str]) -> list[str]:
    port = given.get("PORT", "3000")
    return [] if _is_port(port) else [f"PORT must be a number from 0 to 65535, not {port[:40]!r}."]


def _metrics_port_problems(given: Mapping[str, str]) -> list[str]:
    port = given.get("METRICS_PORT", "0")
    if "://" in port:  # Kubernetes sets it so beside a service that is called metrics
        return [
            f"METRICS_PORT must be a number from 0 to 65535, not {port[:40]!r}: if an orchestrator has set it for a "
            "service of that name, set it yourself or switch that off (enableServiceLinks: false)."
        ]
    if not _is_port(port):
        return [f"METRICS_PORT must be a number from 0 to 65535, not {port[:40]!r}; unset, no metrics are served."]
    if int(port) and port.lstrip("0") == given.get("PORT", "3000").lstrip("0"):
        return [f"METRICS_PORT and PORT are both {port}: metrics need a port of their own, which Slack cannot reach."]
    return []


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _near_misses(given: Mapping[str, str]) -> list[str]:
    problems = []
    for name in given:
        if not name.startswith("OTABRAKE") or name in _OWN or "_PORT" in name or "_SERVICE_" in name:
            continue
        if name.startswith("OTABRAKE_TEST_"):
            continue
        near = difflib.get_close_matches(name, _OWN, n=1, cutoff=0.0)
        problems.append(f"{name} is not a setting. Did you mean {near[0]}? Rename or unset it.")
    return problems


def _slack_problems(given: Mapping[str, str]) -> list[str]:
    problems = []
    token = given.get("SLACK_BOT_TOKEN")
    if token is None:
        problems.append("SLACK_BOT_TOKEN is missing: set it to the bot token (xoxb-…) of your Slack app.")
    elif not token.startswith("xoxb-"):
        problems.append("SLACK_BOT_TOKEN does not begin with xoxb-: it must be the bot token, not another kind.")
    app_token = given.get("SLACK_APP_TOKEN")
    if app_token is None and "SLACK_SIGNING_SECRET" not in given:
        problems.append(
            "SLACK_SIGNING_SECRET is missing: set it to the signing secret of your Slack app (Basic Information), "
            "or set SLACK_APP_TOKEN to use Socket Mode."
        )
    if app_token is not None and not app_token.startswith("xapp-"):
        problems.append(
            "SLACK_APP_TOKEN does not begin with xapp-: it must be an app-level token with connections:write."
        )
    return problems


def _address_problems(given: Mapping[str, str]) -> list[str]:
    problems = database_problems(given)
    problems += [*_port_problems(given), *_metrics_port_problems(given)]
    url = urlsplit(given.get("SLACK_API_URL", DEFAULT_API_URL))
    is_loopback = url.hostname in ("127.0.0.1", "localhost", "::1")
    if not url.hostname or url.scheme not in ("http", "https") or (url.scheme == "http" and not is_loopback):
        problems.append("SLACK_API_URL must be an https:// address (http:// only for this machine).")
    return problems
