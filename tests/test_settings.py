"""The settings: every problem at once, each with what to do, and no secret in sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import ConfigurationError
from bot.settings import database_problems, database_url, read_settings

GOOD = {"SLACK_BOT_TOKEN": "xoxb-secret-1", "SLACK_SIGNING_SECRET": "secret-2"}


def test_two_variables_are_enough() -> None:
    settings = read_settings(GOOD)
    assert (settings.host, settings.port, settings.policies) == ("127.0.0.1", 3000, Path("policies"))
    assert (settings.database_url, settings.slack_api_url) == ("sqlite:///otabrake.db", "https://slack.com/api/")
    assert not settings.is_socket_mode


def test_an_app_token_means_socket_mode_and_needs_no_signing_secret() -> None:
    assert read_settings({"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1"}).is_socket_mode


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings(
            {
                "SLACK_BOT_TOKEN": "xoxp-secret-1",
                "PORT": "http",
                "OTABRAKE_DATABASE_URL": "mysql://root:secret-3@db/x",
                "OTABRAKE_POLICY": "policies",
                "SLACK_API_URL": "http://slack.example/api",
            }
        )
    assert len(raised.value.problems) == 6
    text = str(raised.value)
    assert "OTABRAKE_POLICY is not a setting. Did you mean OTABRAKE_POLICIES?" in text
    assert "SLACK_SIGNING_SECRET is missing" in text
    assert "secret-" not in text


@pytest.mark.parametrize("name", ["OTABRAKE_PORT", "OTABRAKE_PORT_3000_TCP", "OTABRAKE_SERVICE_HOST"])
def test_what_orchestrators_inject_is_ignored(name: str) -> None:
    assert read_settings(GOOD | {name: "tcp://10.0.0.1:3000"})


def test_an_empty_variable_is_a_missing_one() -> None:
    with pytest.raises(ConfigurationError, match="SLACK_SIGNING_SECRET is missing"):
        read_settings({"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_SIGNING_SECRET": "  "})


def test_no_secret_is_in_the_settings_repr() -> None:
    shown = repr(
        read_settings(
            GOOD
            | {
                "SLACK_APP_TOKEN": "xapp-secret-4",
                "OTABRAKE_DATABASE_URL": "postgres://u:secret-5@h/d",
                "PROD_ACCESS_KEY_SECRET": "secret-6",
            }
        )
    )
    assert "secret" not in shown.replace("slack_signing_secret", "")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_spellings_of_postgresql_mean_our_driver(scheme: str) -> None:
    assert database_url({"OTABRAKE_DATABASE_URL": f"{scheme}://u@h/d"}) == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "mysql://x",
        "postgresql://u:pa@ss@h/d",
        "postgresql://u:p/a@h:x/d",
        "postgresql://",
    ],
)
def test_a_database_url_that_cannot_be_read_is_said_without_repeating_it(url: str) -> None:
    problems = database_problems({"OTABRAKE_DATABASE_URL": url})
    assert len(problems) == 1
    assert not any(part in problems[0] for part in ("mysql", "pa@ss", "ss@h", "p/a"))


def test_metrics_have_a_port_of_their_own_or_none() -> None:
    assert read_settings(GOOD).metrics_port is None
    assert read_settings(GOOD | {"METRICS_PORT": " "}).metrics_port is None
    assert read_settings(GOOD | {"METRICS_PORT": "9090"}).metrics_port == 9090
    both_free = read_settings(GOOD | {"PORT": "0", "METRICS_PORT": "0"})
    assert (both_free.port, both_free.metrics_port) == (0, 0)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "9090.0", "٩٠٩٠", "9" * 5000, "0x50"])
def test_a_port_that_is_no_number_is_said_shortly(port: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings(GOOD | {"PORT": port, "METRICS_PORT": port})
    first, second = raised.value.problems
    assert first.startswith("PORT must be a number from 0 to 65535")
    assert second.startswith("METRICS_PORT must be a number from 0 to 65535")
    assert second.endswith("unset, no metrics are served.")
    assert max(map(len, raised.value.problems)) < 200


@pytest.mark.parametrize(("port", "metrics"), [("3000", "3000"), (None, "3000"), ("8080", "08080")])
def test_metrics_are_not_served_where_slack_can_reach_them(port: str | None, metrics: str) -> None:
    given = GOOD | {"METRICS_PORT": metrics} | ({"PORT": port} if port is not None else {})
    with pytest.raises(ConfigurationError, match="METRICS_PORT and PORT are both"):
        read_settings(given)


def test_a_port_that_an_orchestrator_has_set_for_a_service_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="set it yourself or switch that off"):
        read_settings(GOOD | {"METRICS_PORT": "tcp://10.0.0.1:9090"})
