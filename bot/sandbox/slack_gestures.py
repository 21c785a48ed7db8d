"""What a person can do in the fake Slack: type a command, mention the app, choose a shortcut, click a button.

Each gesture is checked as Slack's client and servers would, made into a delivery, carried to the app, and its answer
shown to the person. A gesture that nobody could make is `Impossible`, so that a test cannot do what a person could not.
Source: docs.slack.dev "Implementing slash commands", "Slack Connect", "Handling user interaction".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from bot.sandbox import slack_payloads as payloads
from bot.sandbox.slack_api import App
from bot.sandbox.slack_blocks import buttons
from bot.sandbox.slack_delivery import Answer, Courier, Parcel
from bot.sandbox.slack_payloads import Occasion
from bot.sandbox.slack_replies import Place, Replies
from bot.sandbox.workspace import SLACKBOT, Channel, Message, Person, Workspace

FORM = "application/x-www-form-urlencoded"


class Impossible(Exception):
    """A person could not do this; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gestures:
    """The hands of everybody in the workspace. `respond_at` makes a response_url of its secret part."""

    workspace: Workspace
    app: App
    courier: Courier
    replies: Replies
    now: Callable[[], float]

    async def command(
        self, user: str, channel: str, text: str, *, respond_at: Callable[[str], str], copies: int = 1
    ) -> tuple[Answer, ...]:
        """Types a slash command; without a leading slash it is `/ota`'s text."""
        person, place = self._in_channel(user, channel)
        if person.team != self.workspace.team_id:
            raise Impossible(f"{person.name} belongs to another workspace: slash commands are not offered there.")
        typed = text.strip() if text.strip().startswith("/") else f"/ota {text.strip()}".strip()
        command, _, rest = typed.partition(" ")
        key = self.replies.mint(Place(user=user, channel=channel))
        form = payloads.command_form(
            self.workspace,
            self._occasion(person, place, respond_at(key)),
            command=command,
            text=payloads.escape_typed(self.workspace, rest.strip()),
        )
        answers = await self.courier.carry(
            Parcel("slash_commands", form, payloads.form_body(form), FORM), copies=copies
        )
        for answer in answers:
            error = self.replies.show_acknowledgement(key, answer, typed=payloads.escape_typed(self.workspace, typed))
            if error is not None:
                self._tell(user, channel, f'{command} failed with the error "{error}"')
        return answers

    async def click(
        self, user: str, channel: str, ts: str, *, action_id: str, respond_at: Callable[[str], str], copies: int = 1
    ) -> tuple[Answer, ...]:
        """Clicks a button that stands on a message this person sees (and says yes to its `confirm`, if it has one)."""
        person, place = self._in_channel(user, channel)
        message = self._message(user, channel, ts)
        found = next(((at, one) for at, one in buttons(message.blocks) if one.get("action_id") == action_id), None)
        if found is None:
            there = ", ".join(str(one.get("action_id")) for _, one in buttons(message.blocks)) or "none"
            raise Impossible(f"There is no button {action_id} on message {ts} (buttons there: {there}).")
        block_id, element = found
        if message.user != self.app.bot_user:
            raise Impossible("That button belongs to another app.")
        key = self.replies.mint(Place(user=user, channel=channel, thread_ts=message.thread_ts, original=message))
        payload = payloads.block_actions(
            self.workspace,
            self._occasion(person, place, respond_at(key)),
            message=message,
            block_id=block_id,
            element=element,
            action_ts=self.workspace.mint_ts(self.now()),
        )
        return await self._interact(payload, message=message, user=user, copies=copies)

    async def shortcut(
        self, user: str, channel: str, ts: str, *, callback_id: str, respond_at: Callable[[str], str], copies: int = 1
    ) -> tuple[Answer, ...]:
        """Chooses a message shortcut from a message's menu."""
        person, place = self._in_channel(user, channel)
        if person.team != self.workspace.team_id:
            raise Impossible(f"{person.name} belongs to another workspace: shortcuts are not offered there.")
        message = self._message(user, channel, ts)
        key = self.replies.mint(Place(user=user, channel=channel, thread_ts=message.thread_ts))
        payload = payloads.message_action(
            self.workspace,
            self._occasion(person, place, respond_at(key)),
            message=message,
            callback_id=callback_id,
            action_ts=self.workspace.mint_ts(self.now()),
        )
        return await self._interact(payload, message=message, user=user, copies=copies)

    async def mention(
        self, user: str, channel: str, text: str, *, thread: str | None = None, copies: int = 1
    ) -> tuple[Answer, ...]:
        """Writes a message that mentions the app; an app hears it only in channels that it is in."""
        _, place = self._in_channel(user, channel)
        if thread is not None and self.workspace.find(channel, thread) is None:
            raise Impossible(f"There is no message {thread} in #{place.name} to reply to.")
        called = f"<@{self.app.bot_user}>"
        said = payloads.escape_typed(self.workspace, text.replace(called, "").strip())
        said = said if called in said else f"{called} {said}"
        message = self.workspace.say(
            Message(channel=channel, ts=self.workspace.mint_ts(self.now()), user=user, text=said, thread_ts=thread)
        )
        if self.app.bot_user not in place.members:
            return ()
        payload = payloads.app_mention(
            self.workspace,
            app_id=self.app.app_id,
            bot_user=self.app.bot_user,
            message=message,
            event_id=f"Ev{uuid4().hex[:10].upper()}",
            event_time=int(self.now()),
        )
        parcel = Parcel("events_api", payload, payloads.json_body(payload), "application/json")
        return await self.courier.carry(parcel, copies=copies)

    async def _interact(
        self, payload: Mapping[str, object], *, message: Message, user: str, copies: int
    ) -> tuple[Answer, ...]:
        body = payloads.form_body({"payload": payloads.json_body(payload)})
        answers = await self.courier.carry(Parcel("interactive", payload, body, FORM), copies=copies)
        for error in (answer.error for answer in answers if answer.error is not None):
            text = f'{self._app_name} did not answer: the click failed with the error "{error}"'
            self._tell(user, message.channel, text, thread_ts=message.thread_ts)
        return answers

    @property
    def _app_name(self) -> str:
        return self.workspace.people[self.app.bot_user].name

    def _in_channel(self, user: str, channel: str) -> tuple[Person, Channel]:
        person, place = self.workspace.people.get(user), self.workspace.channels.get(channel)
        if person is None:
            raise Impossible(f"There is nobody with the id {user}.")
        if place is None:
            raise Impossible(f"There is no channel with the id {channel}.")
        if person.is_deactivated:
            raise Impossible(f"{person.name} is deactivated and cannot do anything.")
        if person.bot_id is not None or person.id == SLACKBOT:
            raise Impossible(f"{person.name} is a bot; bots neither type commands nor click.")
        if place.is_archived:
            raise Impossible(f"#{place.name} is archived.")
        if user not in place.members:
            raise Impossible(f"{person.name} is not in #{place.name}.")
        return person, place

    def _message(self, user: str, channel: str, ts: str) -> Message:
        message = self.workspace.find(channel, ts, seen_by=user)
        if message is None:
            raise Impossible(f"{user} sees no message {ts} in {channel}.")
        return message

    def _occasion(self, person: Person, channel: Channel, response_url: str) -> Occasion:
        return Occasion(
            app_id=self.app.app_id,
            person=person,
            channel=channel,
            trigger_id=f"{uuid4().int % 10**12}.{uuid4().int % 10**12}.{uuid4().hex}",
            response_url=response_url,
        )

    def _tell(self, user: str, channel: str, text: str, *, thread_ts: str | None = None) -> None:
        self.replies.tell(Place(user=user, channel=channel, thread_ts=thread_ts), text)
