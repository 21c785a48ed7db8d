"""How the IoT simulator writes its answers: JSON, or XML with an element per field and per row of a list.

Fields whose value is None are left out. It decides nothing about what is answered.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from bot.sandbox.iot_gateway import Received

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def written(received: Received, root: str, body: Mapping[str, Any], *, status: int) -> Response:
    """The answer in the format that was asked for; `root` is the name of the XML's root element."""
    if not received.wants_xml:
        return JSONResponse(_given(body), status_code=status)
    text = f'<?xml version="1.0" encoding="utf-8"?><{root}>{_xml(body)}</{root}>'
    return Response(text, status, media_type="text/xml;charset=utf-8")


def _given(value: Any) -> Any:
    """Without the fields that have no value."""
    if isinstance(value, Mapping):
        return {name: _given(inner) for name, inner in value.items() if inner is not None}
    return [_given(inner) for inner in value] if isinstance(value, list) else value


def _xml(value: Any) -> str:
    """Elements for fields, and one element per row of a list."""
    if not isinstance(value, Mapping):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return html.escape(_NOT_XML.sub("?", text), quote=False)
    rows = [
        (name, row)
        for name, inner in value.items()
        if inner is not None
        for row in (inner if isinstance(inner, list) else [inner])
    ]
    return "".join([f"<{name}>{_xml(row)}</{name}>" for name, row in rows])
