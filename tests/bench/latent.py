"""A cloud that takes its time: every call is answered a fixed latency after it came, however many come at once.

Canned answers of the shape that the IoT Platform documents, unsigned and without limits, so that nearly all the time
that is measured against it is ours. A page of tasks is a hundred of them.
"""

from __future__ import annotations

import asyncio
import functools
import json
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from bot.server import served
from tests.bench.machine import Json, answer_asks, be_a_child

_OK = {"RequestId": "7F9C1B0E-2D47-4E5A-9B43-A1F6C08D3E52", "Success": True}
_JOB = {
    "JobId": "7glPHmaDYLAYMD1HHutT02",
    "JobStatus": "IN_PROGRESS",
    "JobType": "UPGRADE_FIRMWARE",
    "SelectionType": "STATIC",
    "TargetSelection": "ALL",
    "FirmwareId": "Gw421aFq8LkT2nVb6Wc001",
    "ProductKey": "a1Gateway01",
    "Name": "gateway-4.2.1",
    "DestVersion": "4.2.1",
    "MaximumPerMinute": 1000,
    "UtcCreate": "2026-03-01T03:12:00.000Z",
}


def _task(number: int, status: str) -> Json:
    return {
        "TaskId": f"t{number:022}",
        "JobId": "7glPHmaDYLAYMD1HHutT02",
        "FirmwareId": "Gw421aFq8LkT2nVb6Wc001",
        "ProductKey": "a1Gateway01",
        "ProductName": "Gateway G1",
        "DeviceName": f"gw-sh-{number:06}",
        "IotId": f"i{number:029}",
        "TaskStatus": status,
        "Progress": "12.50",
        "TaskDesc": f"reason {number % 7}: report version is not conform",
        "SrcVersion": "4.1.9",
        "DestVersion": "4.2.1",
        "Timeout": "",
        "UtcCreate": "2026-03-01T03:12:00.000Z",
        "UtcModified": "2026-03-01T03:13:00.000Z",
    }


@functools.lru_cache(maxsize=32)
def _answer(action: str, query: str, total: int) -> bytes:
    """Made once for each question: a cloud's latency holds whatever it costs to answer."""
    params = parse_qs(query)
    if action != "ListOTATaskByJob":
        return json.dumps({**_OK, "Data": _JOB}).encode()
    size, page = int(params["PageSize"][0]), int(params["CurrentPage"][0])
    status = params.get("TaskStatus", ["FAILED"])[0]
    rows = [_task((page - 1) * size + number, status) for number in range(size)]
    listed = {"Total": total, "PageSize": size, "CurrentPage": page, "Data": {"SimpleOTATaskInfo": rows}}
    return json.dumps({**_OK, **listed}).encode()


async def _main(options: Json) -> None:
    seconds = options["latency_seconds"]

    async def cloud(scope: Scope, receive: Receive, send: Send) -> None:
        asked = dict(scope["headers"])
        body = _answer(asked.get(b"x-acs-action", b"").decode(), scope["query_string"].decode(), options["tasks"])
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    async with served(cloud) as port:
        await answer_asks({"port": port}, _nothing)


async def _nothing(what: Json) -> Json:
    return {}


if __name__ == "__main__":
    be_a_child(_main)
