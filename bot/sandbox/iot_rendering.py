"""How the IoT simulator writes its answers: JSON, or XML with an element per field and per row of a list.

Fields whose value is None are left out. It decides nothing about what is answered, but which envelope an error has:
that of the service for codes that begin with `iot.`, that of the gateway for others.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from bot.sandbox.habits import DeniedDetail, Habits
from bot.sandbox.inventory import FleetRefusal
from bot.sandbox.iot_gateway import GatewayRefusal, Received

_RECOMMEND = "https://api.aliyun.com/troubleshoot?q={code}&product=Iot"
_DENIALS = ("Forbidden", "Forbidden.RAM", "NoPermission")
_DENIED_DETAIL = {
    "AuthPrincipalType": "SubUser",
    "AuthPrincipalOwnerId": "1000000000000001",
    "AuthPrincipalDisplayName": "200000000000000002",
    "NoPermissionType": "ImplicitDeny",
    "PolicyType": "AccountLevelIdentityBasedPolicy",
    "EncodedDiagnosticMessage": "AQEAAAAA",
}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def written(received: Received, root: str, body: Mapping[str, Any], *, status: int) -> Response:
    """The answer in the format that was asked for; `root` is the name of the XML's root element."""
    if not received.wants_xml:
        return JSONResponse(_given(body), status_code=status)
    text = f'<?xml version="1.0" encoding="utf-8"?><{root}>{_xml(body)}</{root}>'
    return Response(text, status, media_type="text/xml;charset=utf-8")


def refused(
    received: Received, root: str, request_id: str, refusal: GatewayRefusal | FleetRefusal, *, habits: Habits
) -> Response:
    """An error, in the envelope and under the status that its code has here."""
    status = refusal.status if isinstance(refusal, GatewayRefusal) else 0
    if refusal.code.startswith("iot.") or isinstance(refusal, FleetRefusal):
        is_own_status = status and refusal.code != habits.throttling_code
        body = {"RequestId": request_id, "Success": False, "Code": refusal.code, "ErrorMessage": refusal.message}
        response = written(received, root, body, status=status if is_own_status else habits.status_of(refusal.code))
    else:
        body = {
            "RequestId": request_id,
            "HostId": received.headers.get("host", ""),
            "Code": refusal.code,
            "Message": refusal.message,
            "Recommend": _RECOMMEND.format(code=refusal.code),
            "AccessDeniedDetail": _denied_detail(
                refusal.code, f"iot:{root.removesuffix('Response')}", habits.denied_detail
            ),
        }
        response = written(received, "Error", body, status=status)
    if isinstance(refusal, GatewayRefusal) and refusal.retry_after_ms:
        response.headers["x-acs-retry-after"] = str(refusal.retry_after_ms)
    return response


def _denied_detail(code: str, action: str, style: DeniedDetail) -> dict[str, str] | None:
    if code not in _DENIALS or style is DeniedDetail.ABSENT:
        return None
    is_camel = style is DeniedDetail.CAMEL
    detail = {"AuthAction": action, **_DENIED_DETAIL}
    return {name[0].lower() + name[1:] if is_camel else name: value for name, value in detail.items()}


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
