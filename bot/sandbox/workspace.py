"""What the fake Slack remembers: people, user groups, channels, and the messages in them.

It mints timestamps like Slack's and keeps what each person alone has seen. It checks nothing that an app may or may
not do (`slack_api` does), and forgets everything when the process ends. Shapes follow Slack's object reference
(docs.slack.dev, "Objects": user, conversation, usergroup, message).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

SLACKBOT = "USLACKBOT"

Blocks = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who can be seen in the workspace; `team` is the workspace that the account belongs to."""

    id: str
    handle: str
    name: str
    team: str
    bot_id: str | None = None
    is_guest: bool = False
    is_deactivated: bool = False
    locale: str = "en-US"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usergroup:
    id: str
    handle: str
    name: str
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A conversation; `shared_with` are the other workspaces that it is shared with (Slack Connect)."""

    id: str
    name: str
    topic: str = ""
    members: frozenset[str] = frozenset()
    shared_with: tuple[str, ...] = ()
    is_private: bool = False
    is_archived: bool = False
    is_direct: bool = False

    @property
    def delivered_name(self) -> str:
        """The name that Slack puts into deliveries, which is not the real one outside public channels."""
        if self.is_direct:
            return "directmessage"
        return "privategroup" if self.is_private else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What is known of an uploaded file; its content is kept elsewhere. `width` and `height` are those of a picture."""

    id: str
    name: str
    title: str
    mimetype: str
    size: int
    user: str
    created: int
    alt_text: str = ""
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as it stands now. `seen_by` names the only person who sees it (an ephemeral), or is None."""

    channel: str
    ts: str
    user: str
    text: str = ""
    blocks: Blocks = ()
    files: tuple[File, ...] = ()
    bot_id: str | None = None
    thread_ts: str | None = None
    is_broadcast: bool = False
    edited_ts: str | None = None
    metadata: Mapping[str, Any] | None = None
    seen_by: str | None = None


class Workspace:
    """One team and everything said in it. `version` rises with each change, for those who poll."""

    def __init__(
        self,
        *,
        team_id: str,
        team_name: str,
        domain: str,
        people: Iterable[Person],
        usergroups: Iterable[Usergroup],
        channels: Iterable[Channel],
        hints: Iterable[str] = (),
    ) -> None:
        self.team_id = team_id
        self.team_name = team_name
        self.domain = domain
        self.people = {person.id: person for person in people}
        self.usergroups = {group.id: group for group in usergroups}
        self.channels = {channel.id: channel for channel in channels}
        self.hints = tuple(hints)
        self.version = 0
        self._said: dict[str, list[Message]] = {channel: [] for channel in self.channels}
        self._last_ts = (0, 0)

    @classmethod
    def from_seed(cls, path: Path | None = None) -> Workspace:
        """The workspace that a YAML file describes, or the one that comes with the package."""
        source = path or resources.files("bot.sandbox").joinpath("seed_workspace.yaml")
        seed = yaml.safe_load(source.read_text("utf-8"))
        team = seed["team"]
        return cls(
            team_id=team["id"],
            team_name=team["name"],
            domain=team["domain"],
            people=[Person(**{"team": team["id"], **person}) for person in seed["people"]],
            usergroups=[Usergroup(**{**group, "users": tuple(group["users"])}) for group in seed["usergroups"]],
            channels=[_channel(entry) for entry in seed["channels"]],
            hints=seed.get("hints", ()),
        )

    def mint_ts(self, now: float) -> str:
        """A timestamp that no message has yet and that sorts after all of them, also when the clock stands or jumps."""
        second, tick = self._last_ts
        self._last_ts = (int(now), 100) if int(now) > second else (second, tick + 100)
        return "{}.{:06d}".format(*self._last_ts)

    def say(self, message: Message) -> Message:
        self._said[message.channel].append(message)
        self.version += 1
        return message

    def change(self, message: Message, **changes: Any) -> Message:
        """Replaces a message by itself with some fields changed."""
        said = self._said[message.channel]
        said[_position(said, message)] = changed = replace(message, **changes)
        self.version += 1
        return changed

    def remove(self, message: Message) -> None:
        said = self._said[message.channel]
        del said[_position(said, message)]
        self.version += 1

    def put_channel(self, channel: Channel) -> None:
        """Adds a channel or replaces what is known of it (its members, say)."""
        self.channels[channel.id] = channel
        self._said.setdefault(channel.id, [])
        self.version += 1

    def direct_channel(self, user_id: str, bot_user: str) -> Channel | None:
        """The conversation of these two alone, if it was ever opened."""
        pair = {user_id, bot_user}
        return next((one for one in self.channels.values() if one.is_direct and one.members == pair), None)

    def open_direct(self, user_id: str, bot_user: str) -> Channel:
        """A new conversation of these two alone, named after the bot as the person sees it."""
        channel = Channel(
            id=f"D{user_id[1:]}",
            name=self.people[bot_user].handle,
            is_direct=True,
            members=frozenset({user_id, bot_user}),
        )
        self.put_channel(channel)
        return channel

    def invite(self, channel_id: str, user_id: str) -> None:
        """Somebody brings a person or the bot into a channel."""
        channel = self.channels[channel_id]
        self.put_channel(replace(channel, members=channel.members | {user_id}))

    def put_person(self, person: Person) -> None:
        self.people[person.id] = person
        self.version += 1

    def put_usergroup(self, group: Usergroup) -> None:
        self.usergroups[group.id] = group
        self.version += 1

    def find(self, channel: str, ts: str, *, seen_by: str | None = None) -> Message | None:
        """The message at `ts` that everybody sees, or that `seen_by` alone sees."""
        said = self._said.get(channel, ())
        return next((one for one in said if one.ts == ts and one.seen_by in (None, seen_by)), None)

    def messages(self, channel: str, thread: str | None = None) -> tuple[Message, ...]:
        """What everybody sees: the channel (its roots and broadcast replies), or one thread with its root."""
        said = (one for one in self._said.get(channel, ()) if one.seen_by is None)
        if thread is None:
            return tuple(one for one in said if one.thread_ts is None or one.is_broadcast)
        return tuple(one for one in said if thread in (one.ts, one.thread_ts))

    def ephemerals(self, user: str) -> tuple[Message, ...]:
        """What this person alone was shown, in every channel, oldest first."""
        return tuple(sorted(self._seen_only_by(user), key=lambda one: one.ts))

    def _seen_only_by(self, user: str) -> Iterator[Message]:
        return (one for said in self._said.values() for one in said if one.seen_by == user)


def load_workspace(path: Path | None = None) -> Workspace:
    """The workspace to start with: the seed file's, or the packaged one."""
    return Workspace.from_seed(path)


def _position(said: list[Message], message: Message) -> int:
    return next(place for place, one in enumerate(said) if one.ts == message.ts and one.seen_by == message.seen_by)


def _channel(entry: Mapping[str, Any]) -> Channel:
    return Channel(
        **{**entry, "members": frozenset(entry["members"]), "shared_with": tuple(entry.get("shared_with", ()))}
    )
