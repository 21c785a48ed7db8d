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
