"""Reading a tree as what the language says it is: each function takes a node, complains and returns None if it is not.

Complaining never stops the reading, so that everything wrong with a folder is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from bot.policy.complaints import Complaints, Mark, shown
from bot.policy.nodes import Mapping, Node, Scalar, Sequence

_WORD = re.compile(r"[\w.*-]{1,40}")
_DIGITS = re.compile(r"[0-9]{1,9}")


class Page:
    """One file while it is read."""

    __slots__ = ("complaints", "file")

    def __init__(self, file: str, complaints: Complaints) -> None:
        self.file = file
        self.complaints = complaints

    def wrong(self, at: Mark, wrong: str, *, expected: str | None = None, instead_of: str | None = None) -> None:
        self.complaints.add(self.file, at, wrong, expected=expected, instead_of=instead_of)


def fields(page: Page, node: Node, *, of: str, known: Collection[str]) -> dict[str, tuple[Mark, Node]]:
    """The fields of a mapping. One that is nearly right is read as what it was meant to be, after the complaint."""
    if not isinstance(node, Mapping):
        page.wrong(node.at, f"{of} is {_kind(node)}", expected=f"a mapping with {', '.join(known)}")
        return {}
    found = node.items
    if all(key in known for key in found):
        return found
    right = {key: value for key, value in found.items() if key in known}
    for key, (at, value) in found.items():
        if key in known:
            continue
        near = page.complaints.nearest(key, known)
        page.wrong(at, f"unknown key {shown(key)} in {of}", expected=", ".join(known), instead_of=near)
        if near is not None and near not in right:
            right[near] = (at, value)
    return right


def is_empty(node: Node) -> bool:
    """Whether this is a mapping with nothing in it; then no complaint was made about its keys."""
    return isinstance(node, Mapping) and not node.items


def named(page: Page, node: Node, *, of: str) -> dict[str, tuple[Mark, Node]]:
    """The entries of a mapping whose keys are names."""
    if isinstance(node, Mapping):
        return node.items
    page.wrong(node.at, f"{of} is {_kind(node)}", expected="a mapping from names to what they stand for")
    return {}


def entries(page: Page, node: Node, *, of: str) -> list[Node]:
    """The parts of a list that is not empty."""
    if isinstance(node, Sequence):
        if not node.items:
            page.wrong(node.at, f"{of} is an empty list", expected="at least one entry, or no such key")
        return node.items
    page.wrong(node.at, f"{of} is {_kind(node)}", expected="a list")
    return []


def words(page: Page, node: Node, *, of: str) -> list[Scalar]:
    """The words of a list that is not empty."""
    if isinstance(node, Scalar) and _WORD.fullmatch(node.text):
        page.wrong(node.at, f"{of} is {_kind(node)}", expected="a list", instead_of=f"[{node.text}]")
        return []
    found = []
    for entry in entries(page, node, of=of):
        if isinstance(entry, Scalar) and entry.text:
            found.append(entry)
        else:
            page.wrong(entry.at, f"{_kind(entry)} in {of}", expected="a word")
    return found


def text(page: Page, node: Node, *, of: str, most: int) -> str | None:
    """One line of text; line breaks and runs of spaces become single spaces."""
    if not isinstance(node, Scalar) or not node.text.strip():
        page.wrong(node.at, f"{of} is {_kind(node)}", expected="text")
        return None
    line = " ".join(node.text.split())
    if len(line) > most:
        page.wrong(node.at, f"{of} has {len(line)} characters", expected=f"at most {most}")
        return None
    if not line.isprintable():
        page.wrong(node.at, f"{of} has a character that cannot be shown", expected="printable text")
        return None
    return line


def shaped(page: Page, node: Node, shape: re.Pattern[str], *, of: str, expected: str) -> str | None:
    """A word of one shape."""
    if isinstance(node, Scalar) and shape.fullmatch(node.text):
        return node.text
    page.wrong(node.at, f"{of} is {_kind(node)}", expected=expected)
    return None


def one_of(page: Page, node: Node, right: Collection[str], *, of: str) -> str | None:
    if isinstance(node, Scalar) and node.text in right:
        return node.text
    near = page.complaints.nearest(node.text, right) if isinstance(node, Scalar) else None
    page.wrong(node.at, f"{of} is {_kind(node)}", expected=", ".join(right), instead_of=near)
    return None


def whole_number(page: Page, node: Node, *, of: str) -> int | None:
    if isinstance(node, Scalar) and _DIGITS.fullmatch(node.text):
        return int(node.text)
    page.wrong(node.at, f"{of} is {_kind(node)}", expected="a whole number in digits, such as 500")
    return None


def _kind(node: Node) -> str:
    if isinstance(node, Scalar):
        return shown(node.text) if node.text else "empty"
    return "a list" if isinstance(node, Sequence) else "a mapping"
