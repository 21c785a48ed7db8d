"""The block and limit rules of Slack's messages, as a table.

`complaints(blocks)` says what Slack would refuse, each with a JSON pointer. Known are the blocks that a message of this
bot may hold; a block or element outside the table is refused, so that nothing is posted here that was never checked.
Modals, home tabs, attachments and the newer blocks are left out on purpose.

Source: docs.slack.dev, Block Kit reference (each block's, element's and composition object's page).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_BLOCKS = 50

Check = Callable[[Any, str], Iterator[str]]
"""Yields a complaint for each thing wrong with the value at the pointer."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties an object must and may have; `also` checks what no single property can show."""

    required: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, Check] = field(default_factory=dict)
    also: Check | None = None

    def __call__(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"must be an object [json-pointer:{at}]"
            return
        for name in sorted(self.required.keys() - value.keys()):
            yield f"missing required field: {name} [json-pointer:{at}]"
        for name, inner in value.items():
            check = self.required.get(name) or self.optional.get(name)
            if check is not None:
                yield from check(inner, f"{at}/{name}")
            elif name != "type":
                yield f"invalid additional property: {name} [json-pointer:{at}]"
        if self.also is not None:
            yield from self.also(value, at)


def string(limit: int, *, minimum: int = 1) -> Check:
    def check(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"must be a string [json-pointer:{at}]"
        elif len(value) < minimum:
            yield f"must be more than {minimum - 1} characters [json-pointer:{at}]"
        elif len(value) > limit:
            yield f"must be less than {limit + 1} characters [json-pointer:{at}]"

    return check


def boolean(value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"must be a boolean [json-pointer:{at}]"


def integer(lowest: int, highest: int) -> Check:
    def check(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            yield f"must be a whole number from {lowest} to {highest} [json-pointer:{at}]"

    return check


def one_of(*words: str) -> Check:
    def check(value: Any, at: str) -> Iterator[str]:
        if value not in words:
            yield f"must be one of {', '.join(words)} [json-pointer:{at}]"

    return check


def items(check_item: Check, *, most: int, least: int = 1) -> Check:
    def check(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"must be an array [json-pointer:{at}]"
            return
        if len(value) < least:
            yield f"no less than {least} items allowed [json-pointer:{at}]"
        if len(value) > most:
            yield f"no more than {most} items allowed [json-pointer:{at}]"
        for place, item in enumerate(value):
            yield from check_item(item, f"{at}/{place}")

    return check


def typed(shapes: Mapping[str, Check]) -> Check:
    """An object whose `type` chooses its shape."""

    def check(value: Any, at: str) -> Iterator[str]:
        kind = value.get("type") if isinstance(value, Mapping) else None
        shape = shapes.get(kind) if isinstance(kind, str) else None
        if shape is None:
            yield f"unsupported type: {kind} (allowed here: {', '.join(shapes)}) [json-pointer:{at}/type]"
        else:
            yield from shape(value, at)

    return check


def plain_text(limit: int) -> Check:
    return typed({"plain_text": Shape({"text": string(limit)}, {"emoji": boolean})})


def any_text(limit: int) -> Check:
    return typed(
        {
            "plain_text": Shape({"text": string(limit)}, {"emoji": boolean}),
            "mrkdwn": Shape({"text": string(limit)}, {"verbatim": boolean}),
        }
    )


def _has_text_or_fields(block: Any, at: str) -> Iterator[str]:
    if "text" not in block and "fields" not in block:
        yield f"must define either text or fields [json-pointer:{at}]"


IDENTIFIER = string(255)
STYLE = one_of("primary", "danger")

CONFIRM = Shape(
    {"title": plain_text(100), "text": any_text(300), "confirm": plain_text(30), "deny": plain_text(30)},
    {"style": STYLE},
)
BUTTON = Shape(
    {"text": plain_text(75)},
    {
        "action_id": IDENTIFIER,
        "value": string(2000),
        "url": string(3000),
        "style": STYLE,
        "confirm": CONFIRM,
        "accessibility_label": string(75),
    },
)
IMAGE = Shape({"image_url": string(3000), "alt_text": string(2000)})

RICH_STYLE = Shape(optional=dict.fromkeys(("bold", "italic", "strike", "code"), boolean))
RICH_LEAF = typed(
    {
        "text": Shape({"text": string(40_000)}, {"style": RICH_STYLE}),
        "link": Shape({"url": string(3000)}, {"text": string(40_000), "style": RICH_STYLE, "unsafe": boolean}),
        "user": Shape({"user_id": string(255)}, {"style": RICH_STYLE}),
        "usergroup": Shape({"usergroup_id": string(255)}, {"style": RICH_STYLE}),
        "channel": Shape({"channel_id": string(255)}, {"style": RICH_STYLE}),
        "emoji": Shape({"name": string(255)}, {"unicode": string(255), "style": RICH_STYLE}),
        "broadcast": Shape({"range": one_of("here", "channel", "everyone")}),
        "date": Shape(
            {"timestamp": integer(0, 4_102_444_800), "format": string(255)},
            {"url": string(3000), "fallback": string(255), "style": RICH_STYLE},
        ),
    }
)
RICH_LEAVES = items(RICH_LEAF, most=1000, least=0)
RICH_SECTION = Shape({"elements": RICH_LEAVES})
RICH_PART = typed(
    {
        "rich_text_section": RICH_SECTION,
        "rich_text_preformatted": Shape({"elements": RICH_LEAVES}, {"border": integer(0, 1), "language": string(255)}),
        "rich_text_quote": Shape({"elements": RICH_LEAVES}, {"border": integer(0, 1)}),
        "rich_text_list": Shape(
            {
                "style": one_of("bullet", "ordered"),
                "elements": items(typed({"rich_text_section": RICH_SECTION}), most=1000),
            },
            {"indent": integer(0, 8), "offset": integer(0, 1_000_000), "border": integer(0, 1)},
        ),
    }
)

NAMED = {"block_id": IDENTIFIER}

BLOCK = typed(
    {
        "section": Shape(
            {},
            NAMED
            | {
                "text": any_text(3000),
                "fields": items(any_text(2000), most=10),
                "accessory": typed({"button": BUTTON, "image": IMAGE}),
                "expand": boolean,
            },
            also=_has_text_or_fields,
        ),
        "header": Shape({"text": plain_text(150)}, NAMED | {"level": integer(1, 4)}),
        "context": Shape(
            {
                "elements": items(
                    typed(
                        {
                            "plain_text": Shape({"text": string(3000)}, {"emoji": boolean}),
                            "mrkdwn": Shape({"text": string(3000)}, {"verbatim": boolean}),
                            "image": IMAGE,
                        }
                    ),
                    most=10,
                )
            },
            NAMED,
        ),
        "divider": Shape({}, NAMED),
        "actions": Shape({"elements": items(typed({"button": BUTTON}), most=25)}, NAMED),
        "image": Shape({"image_url": string(3000), "alt_text": string(2000)}, NAMED | {"title": plain_text(2000)}),
        "rich_text": Shape({"elements": items(RICH_PART, most=1000)}, NAMED),
    }
)


def complaints(blocks: Any) -> tuple[str, ...]:
    """What Slack would say against these blocks, each ending with a JSON pointer; empty if they may be posted."""
    found = tuple(items(BLOCK, most=MAX_BLOCKS, least=0)(blocks, "/blocks"))
    return found or tuple(_repeated_ids(blocks))


def buttons(blocks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every button with the id of the block it stands in, top to bottom."""
    for block in blocks:
        elements = [*block.get("elements", ()), block.get("accessory") or {}]
        for element in elements:
            if element.get("type") == "button":
                yield str(block.get("block_id", "")), element


def with_ids(blocks: Sequence[Mapping[str, Any]], *, stem: str) -> tuple[Mapping[str, Any], ...]:
    """The blocks as Slack keeps them: a block or button that came without an id is given one."""
    return tuple(_with_ids(block, f"{stem}{place}") for place, block in enumerate(blocks))


def _with_ids(block: Mapping[str, Any], stem: str) -> Mapping[str, Any]:
    kept = {"block_id": stem, **block}
    if block["type"] == "actions":
        kept["elements"] = [
            {"action_id": f"{stem}.{place}", **element} for place, element in enumerate(block["elements"])
        ]
    if block.get("accessory", {}).get("type") == "button":
        kept["accessory"] = {"action_id": f"{stem}.a", **block["accessory"]}
    return kept


def _repeated_ids(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for kind, ids in (
        ("block_id", [block["block_id"] for block in blocks if "block_id" in block]),
        ("action_id", [button["action_id"] for _, button in buttons(blocks) if "action_id" in button]),
    ):
        for repeated in (name for name, times in Counter(ids).items() if times > 1):
            yield f"`{kind}` must be unique in a message: {repeated} [json-pointer:/blocks]"
