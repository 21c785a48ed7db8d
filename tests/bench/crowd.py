"""A light Slack and the engineers in it, as a process of its own: each types a command, clicks, and waits for the end.

This Slack remembers nothing but the flows under way, so that it costs little; it checks nothing (`bot.sandbox.slack`
does). Deliveries are signed and go to the bots in turn, as a load balancer sends them, on a connection each.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.types import Receive, Scope, Send

from bot.sandbox.server import SIGNING_SECRET
from bot.sandbox.slack_payloads import Occasion, block_actions, form_body, json_body
from bot.sandbox.workspace import Channel, Message, Workspace, load_workspace
from bot.server import served
from tests.bench.flow_watch import Flow, Offered, Watch, run_flows
from tests.bench.load import FIELDS, Connection, http_request
from tests.bench.machine import Broken, Json, answer_asks, be_a_child
from tests.bench.unlimited import INSTANCE

_APP, _BOT, _USER = FIELDS["api_app_id"], "U0OTABRAKE", FIELDS["user_id"]


class LightSlack:
    """The Web API as far as a flow needs it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.url = ""
        self.posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        self.posts += 1
        answer: Json = {"ok": True}
        _, area, name = scope["path"].split("/", 2)
        if area == "api":
            answer |= self._api(name, _arguments(scope, body))
        elif area == "response":
            self.watch.replied(name, json.loads(body)["text"])
        raw = json.dumps(answer).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": raw})

    def _api(self, method: str, arguments: Mapping[str, Any]) -> Json:
        if method == "chat.postMessage":
            is_broadcast = bool(arguments.get("reply_broadcast"))
            channel, thread = arguments["channel"], arguments.get("thread_ts")
            ts = self.watch.posted(channel, arguments["text"], thread, is_broadcast=is_broadcast)
            return {"channel": channel, "ts": ts}
        if method == "chat.update":
            channel, ts = arguments["channel"], arguments["ts"]
            self.watch.updated(channel, ts, arguments["text"], arguments["blocks"])
            return {"channel": channel, "ts": ts}
        if method == "chat.postEphemeral":
            self.watch.replied(arguments["channel"], arguments["text"])
            return {"message_ts": "1.1"}
        return self._looked_up(method, arguments)

    def _looked_up(self, method: str, arguments: Mapping[str, Any]) -> Json:
        if method == "auth.test":
            return {"team_id": FIELDS["team_id"], "user_id": _BOT, "bot_id": "B0OTABRAKE"}
        if method == "bots.info":
            return {"bot": {"app_id": _APP}}
        if method == "users.info":
            return {"user": {"id": arguments["user"], "team_id": FIELDS["team_id"], "locale": "en-US"}}
        if method == "usergroups.users.list":
            return {"users": [_USER]}
        if method == "files.getUploadURLExternal":
            return {"upload_url": f"{self.url}/upload/F0BENCH", "file_id": "F0BENCH"}
        return {"files": []}


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


def _arguments(scope: Scope, body: bytes) -> Mapping[str, Any]:
    if body.startswith(b"{"):
        found: Json = json.loads(body)
        return found
    return dict(parse_qsl((body or scope["query_string"]).decode()))


@dataclass(frozen=True, slots=True)
class Target:
    """The bots, in turn, and the Slack that the engineers are in."""

    ports: Iterator[int]
    slack_url: str
    workspace: Workspace


class Engineer:
    """Somebody who stops a rollout."""

    def __init__(self, target: Target, watch: Watch) -> None:
        self._target = target
        self._watch = watch

    async def stop(self, job: str) -> None:
        """A whole flow, from the command to the last line."""
        flow = self._watch.begin(job)
        try:
            await self._deliver(self._command(flow))
            offered = await flow.reached(flow.offered)
            await self._deliver(self._click(flow, offered))
            await flow.reached(flow.ended)
        finally:
            self._watch.forget(flow)

    async def _deliver(self, body: bytes) -> None:
        port = next(self._target.ports)
        connection = await Connection.to(port)
        status = await connection.send(http_request(body, port=port, secret=SIGNING_SECRET))
        connection.close()
        if status != 200:
            raise Broken(f"a delivery was answered {status}")

    def _command(self, flow: Flow) -> bytes:
        text = f"cancel {flow.job} on {INSTANCE} because 4.2.1 bricks gateways"
        where = {"channel_id": flow.channel, "channel_name": "incident", "response_url": self._reply_to(flow)}
        return urlencode({**FIELDS, **where, "text": text, "trigger_id": f"1.2.{secrets.token_hex(8)}"}).encode()

    def _reply_to(self, flow: Flow) -> str:
        return f"{self._target.slack_url}/response/{flow.channel}"

    def _click(self, flow: Flow, offered: Offered) -> bytes:
        workspace = self._target.workspace
        occasion = Occasion(
            app_id=_APP,
            person=workspace.people[_USER],
            channel=Channel(id=flow.channel, name="incident"),
            trigger_id=f"1.2.{secrets.token_hex(8)}",
            response_url=self._reply_to(flow),
        )
        message = Message(
            channel=flow.channel,
            ts=offered.ts,
            user=_BOT,
            bot_id="B0OTABRAKE",
            text=offered.text,
            blocks=tuple(offered.blocks),
            thread_ts=offered.thread,
        )
        payload = block_actions(
            workspace,
            occasion,
            message=message,
            block_id=offered.block_id,
            element=offered.element,
            action_ts=f"{time.time():.6f}",
        )
        return form_body({"payload": json_body(payload)})


async def _main(options: Json) -> None:
    watch = Watch()
    slack, workspace = LightSlack(watch), load_workspace()

    async def answer(what: Json) -> Json:
        target = Target(cycle(what["ports"]), slack.url, workspace)
        engineers = [Engineer(target, watch) for _ in range(what["at_once"])]
        before = slack.posts
        told = await run_flows([each.stop for each in engineers], what["jobs"], seconds=what["seconds"])
        return {**told, "posts": slack.posts - before}

    async with served(slack) as port:
        slack.url = f"http://127.0.0.1:{port}"
        await answer_asks({"port": port}, answer)


if __name__ == "__main__":
    be_a_child(_main)
