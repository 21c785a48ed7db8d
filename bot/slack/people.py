"""Who somebody is, from Slack: the account's kind and the user groups that the policy names, cached with a stated age.

Closed by default: guests, bots, deactivated accounts and people of another organisation are not let in, and neither is
anybody whom Slack does not answer for. Names and e-mail addresses are never looked at.
https://docs.slack.dev/reference/methods/users.info
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import ClientError
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import PeopleUnavailable, Unidentified
from bot.model import Actor
from bot.ports import Person
from bot.slack.gate import Identity

SLACK_TROUBLE = (SlackClientError, ClientError, asyncio.TimeoutError, OSError)
"""Whatever can go wrong on the way to Slack's Web API."""

_NOBODY = ("user_not_found", "user_not_visible", "users_not_found")
_NO_GROUP = ("no_such_subteam", "subteam_not_found")


def error_code(error: SlackApiError) -> str:
    """Slack's word for what went wrong, or the HTTP status where something before Slack answered."""
    body = getattr(error.response, "data", None)
    code = body.get("error") if isinstance(body, dict) else None
    return str(code) if code else f"http_{getattr(error.response, 'status_code', None) or 'unreadable'}"


class SlackPeople:
    """`ports.People`; `usergroups` tells which groups the policy names at the moment."""

    def __init__(
        self,
        client: AsyncWebClient,
        identity: Identity,
        *,
        usergroups: Callable[[], frozenset[str]],
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._identity = identity
        self._usergroups = usergroups
        self._clock = clock
        self._accounts: dict[str, tuple[datetime, dict[str, Any]]] = {}
        self._members: dict[str, tuple[datetime, frozenset[str]]] = {}

    async def identify(self, user_id: str, *, max_age_seconds: float) -> Person:
        try:
            account, *memberships = await asyncio.gather(
                self._account(user_id, max_age_seconds),
                *(self._is_member(user_id, group, max_age_seconds) for group in sorted(self._usergroups())),
            )
        except SlackApiError as error:
            if error_code(error) in _NOBODY:
                raise Unidentified("Slack does not know you in this workspace.") from error
            raise PeopleUnavailable(f"Slack answered {error_code(error)}") from error
        except SLACK_TROUBLE as error:
            raise PeopleUnavailable(f"Slack did not answer ({type(error).__name__})") from error
        self._refuse_strangers(account)
        groups = frozenset(group for group in memberships if group is not None)
        locale = str(account.get("locale") or "en")
        return Person(Actor(user_id, groups, self._clock()), language=locale.partition("-")[0])

    def _refuse_strangers(self, account: dict[str, Any]) -> None:
        if account.get("deleted"):
            raise Unidentified("your account is deactivated.")
        if account.get("is_bot") or account.get("is_workflow_bot") or account.get("id") == "USLACKBOT":
            raise Unidentified("bots may not use this.")
        if account.get("is_restricted") or account.get("is_ultra_restricted"):
            raise Unidentified("guests may not use this. Ask a full member of the workspace.")
        team = account.get("team_id")
        enterprise = (account.get("enterprise_user") or {}).get("enterprise_id")
        is_ours = team == self._identity.team_id or (
            enterprise is not None and enterprise == self._identity.enterprise_id
        )
        if account.get("is_stranger") or not is_ours:
            raise Unidentified("you belong to another organisation. Ask somebody of this workspace.")

    async def _account(self, user_id: str, max_age_seconds: float) -> dict[str, Any]:
        known = self._accounts.get(user_id)
        if known is not None and self._is_fresh(known[0], max_age_seconds):
            return known[1]
        asked_at = self._clock()
        answer = await self._client.users_info(user=user_id)
        account = answer.get("user")
        if not isinstance(account, dict):
            raise PeopleUnavailable("Slack's answer names no user")
        self._accounts[user_id] = (asked_at, account)
        return account

    async def _is_member(self, user_id: str, group: str, max_age_seconds: float) -> str | None:
        known = self._members.get(group)
        if known is None or not self._is_fresh(known[0], max_age_seconds):
            asked_at = self._clock()
            known = (asked_at, await self._fetch_members(group))
            self._members[group] = known
        return group if user_id in known[1] else None

    async def _fetch_members(self, group: str) -> frozenset[str]:
        """A group that is gone has nobody in it: that must not lock everybody else out."""
        try:
            answer = await self._client.usergroups_users_list(usergroup=group)
        except SlackApiError as error:
            if error_code(error) in _NO_GROUP:
                return frozenset()
            raise
        return frozenset(answer.get("users") or ())

    def _is_fresh(self, asked_at: datetime, max_age_seconds: float) -> bool:
        age = (self._clock() - asked_at).total_seconds()
        return 0 <= age <= max_age_seconds
