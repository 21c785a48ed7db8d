"""Answers of the simulated service that are wrong on the wire: what faults make of a right one. It decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bot.sandbox.iot_faults import Fault, FaultKind

HUGE_BYTES = 16 * 1024 * 1024
_BLANKS = b" " * 65_536
_PAGE = "<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"


class CutShort(Response):
    """Half of an answer, and then the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def proxy_page(fault: Fault) -> Response:
    """What a proxy in between shows."""
    status = fault.answer[1]
    title = "Sign in to the network" if status == 200 else f"{status} Bad Gateway"
    return HTMLResponse(_PAGE.format(title=title), status_code=status)


def _closed(response: Response) -> Response:
    return CutShort(response.body, response.status_code, media_type=response.media_type)


def _truncated(response: Response) -> Response:
    half = bytes(response.body)[: len(response.body) // 2]
    return Response(half, response.status_code, media_type=response.media_type)


def _malformed(response: Response) -> Response:
    body = bytes(response.body)
    is_xml = body.startswith(b"<")
    spoilt = body.replace(b"</RequestId>", b"</RequestID>", 1) if is_xml else body.replace(b'":', b'"=', 1)
    return Response(spoilt, response.status_code, media_type=response.media_type)


def _wrong_type(response: Response) -> Response:
    return Response(response.body, response.status_code, media_type="text/plain")


def _empty(response: Response) -> Response:
    return Response(b"", response.status_code, media_type=response.media_type)


def _listed(response: Response) -> Response:
    return Response(b"[" + bytes(response.body) + b"]", response.status_code, media_type=response.media_type)


def _huge(response: Response) -> Response:
    """The answer with blanks behind it: it is right, for whoever reads it to its end."""

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(response.body)
        for _ in range(HUGE_BYTES // len(_BLANKS)):
            yield _BLANKS

    return StreamingResponse(chunks(), response.status_code, media_type=response.media_type)


BREAKING: Mapping[FaultKind, Callable[[Response], Response]] = {
    FaultKind.ACCEPT_THEN_CLOSE: _closed,
    FaultKind.TRUNCATED: _truncated,
    FaultKind.MALFORMED: _malformed,
    FaultKind.WRONG_TYPE: _wrong_type,
    FaultKind.EMPTY: _empty,
    FaultKind.LISTED: _listed,
    FaultKind.HUGE: _huge,
}
"""What becomes of a right answer."""

MISSING: Mapping[FaultKind, str] = {FaultKind.NO_TOTAL: "Total", FaultKind.NO_SUCCESS: "Success"}
"""The field that is left out of an answer."""
