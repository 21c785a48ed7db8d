"""Block Kit's pieces, as few as we use. Text of people and of the cloud goes only into `plain_text`.

Lengths are Slack's own limits; what is longer is cut with an ellipsis, never refused.
https://docs.slack.dev/reference/block-kit
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Block = dict[str, Any]

HEADER_LENGTH = 150
SECTION_LENGTH = 3000
BUTTON_LENGTH = 75
TEXT_LENGTH = 3900
LINE_LENGTH = 1500
NOTHING = "–"
_HALF_ENTITY = re.compile(r"&[a-z]{0,3}…")


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def escaped(text: str) -> str:
    """Text for a place where Slack reads markup: it can make no mention, no link and no entity of it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(text: str, length: int = SECTION_LENGTH) -> Block:
    return {"type": "plain_text", "text": cut(text.strip(), length) or NOTHING, "emoji": False}


def fitted(lines: Iterable[str], length: int) -> str:
    """The lines as one text; where they are too many, the last ones are left out and counted."""
    kept = [cut(line, LINE_LENGTH) for line in lines]
    text, left = "\n".join(kept), 0
    while len(text) > length and len(kept) > 1:
        kept.pop()
        left += 1
        text = "\n".join([*kept, f"… and {left:,} more line{'s' if left > 1 else ''}"])
    return cut(text, length)


def fallback(parts: Iterable[str], *, length: int = TEXT_LENGTH) -> str:
    """A message's own text, from parts that are not escaped yet."""
    shown = (escaped(cut(part, LINE_LENGTH)) for part in parts if part.strip())
    return _HALF_ENTITY.sub("…", fitted(shown, length)) or NOTHING


def mrkdwn(text: str) -> Block:
    """Only for text of our own, made of ids and dates."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def header(text: str) -> Block:
    return {"type": "header", "text": {**plain(text, HEADER_LENGTH), "emoji": True}}


def section(lines: Iterable[str]) -> Block:
    return {"type": "section", "text": plain(fitted(lines, SECTION_LENGTH))}


def context(*elements: Block) -> Block:
    return {"type": "context", "elements": list(elements)}


def button(text: str, *, action_id: str, value: str, style: str | None = None) -> Block:
    made: Block = {"type": "button", "text": plain(text, BUTTON_LENGTH), "action_id": action_id, "value": value}
    return made | {"style": style} if style else made


def actions(*buttons: Block) -> Block:
    return {"type": "actions", "elements": list(buttons)}


def preformatted(text: str) -> Block:
    """A line to copy, exactly as it is."""
    leaf = {"type": "text", "text": cut(text, SECTION_LENGTH)}
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [leaf]}]}
