"""From the bytes of one policy file to a tree whose every part knows where it stands.

Scalars stay text, whatever they look like, so that `NO`, `22:00` and `0o17` are words where words are expected. A part
of YAML is refused on purpose: anchors and aliases (a few bytes of them expand to gigabytes), tags, several documents,
keys that are not words, and nesting that no policy needs. Built from parser events rather than from composed nodes,
because composing resolves aliases silently and recurses as deep as the text wishes. YAML 1.1:
https://yaml.org/spec/1.1/
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from bot.policy.complaints import Complaints, Mark, place, shown

MOST_BYTES = 1 << 20
_DEEPEST = 16
_LOADER = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


class Spot(NamedTuple):
    """A place counted from 0."""

    line: int
    column: int


class Scalar(NamedTuple):
    text: str
    at: Mark


class Sequence(NamedTuple):
    items: list[Node]
    at: Mark


class Mapping(NamedTuple):
    """`items` holds, for each key, where the key stands and its value."""

    items: dict[str, tuple[Mark, Node]]
    at: Mark


Node = Scalar | Sequence | Mapping


class _Unreadable(Exception):
    def __init__(self, at: Mark, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.at = at
        self.wrong = wrong
        self.expected = expected


class Unread(Exception):
    """The file has no tree; why is among the complaints."""


def read_tree(file: str, content: bytes, complaints: Complaints) -> Node | None:
    """The tree of a file, None if it is empty. Raises `Unread` after complaining."""
    try:
        text = _decode(content)
        try:
            return _Builder(file, text, complaints).build()
        except yaml.MarkedYAMLError as error:
            raise _in_words(error, text) from error
    except _Unreadable as error:
        complaints.add(file, error.at, error.wrong, expected=error.expected)
        raise Unread from error


def _decode(content: bytes) -> str:
    if len(content) > MOST_BYTES:
        raise _Unreadable(Spot(0, 0), "the file is larger than 1 MiB", "smaller files; rules may stand in several")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", errors="replace")
        raise _Unreadable(_end_of(before), "the file is not UTF-8 text", "the file saved as UTF-8") from error
    strange = _NOT_TEXT.search(text)
    if strange:
        wrong = f"a character that YAML does not admit (U+{ord(strange.group()):04X})"
        raise _Unreadable(_end_of(text[: strange.start()]), wrong, "printable text")
    return text


def _end_of(text: str) -> Spot:
    return Spot(text.count("\n"), len(text) - text.rfind("\n") - 1)


class _Open:
    """A collection whose end has not been seen. In a mapping, `key` is the key that waits for its value."""

    __slots__ = ("key", "node")

    def __init__(self, node: Sequence | Mapping) -> None:
        self.node = node
        self.key: Scalar | None = None


class _Builder:
    def __init__(self, file: str, text: str, complaints: Complaints) -> None:
        self._file = file
        self._parser = _LOADER(text)
        self._complaints = complaints
        self._open: list[_Open] = []
        self._root: Node | None = None

    def build(self) -> Node | None:
        try:
            self._read()
        finally:
            self._parser.dispose()
        if isinstance(self._root, Scalar) and not self._root.text:
            return None
        return self._root

    def _read(self) -> None:
        documents = 0
        while True:
            event: Any = self._parser.get_event()
            kind = type(event)
            if kind is ScalarEvent:
                _refuse_markup(event)
                self._put(Scalar(event.value, event.start_mark))
            elif kind is MappingStartEvent:
                self._start(Mapping({}, event.start_mark), event)
            elif kind is SequenceStartEvent:
                self._start(Sequence([], event.start_mark), event)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._open.pop()
            elif kind is AliasEvent:
                wrong = f"an alias (*{event.anchor}), which is not used here"
                raise _Unreadable(
                    event.start_mark, wrong, 'the words themselves; a glob that starts with * in "quotes"'
                )
            elif kind is DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _Unreadable(event.start_mark, "a second document (---)", "one document in each file")
            elif kind is StreamEndEvent:
                return

    def _start(self, node: Sequence | Mapping, event: Any) -> None:
        _refuse_markup(event)
        self._put(node)
        if len(self._open) == _DEEPEST:
            raise _too_deep(node.at)
        self._open.append(_Open(node))

    def _put(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        inner = self._open[-1]
        if isinstance(inner.node, Sequence):
            inner.node.items.append(node)
        elif inner.key is not None:
            self._keep(inner.node, inner.key, node)
            inner.key = None
        elif isinstance(node, Scalar):
            inner.key = node
        else:
            raise _Unreadable(node.at, "a key that is a list or a mapping", "a word before the colon")

    def _keep(self, mapping: Mapping, key: Scalar, node: Node) -> None:
        first = mapping.items.get(key.text)
        if first is None:
            mapping.items[key.text] = (key.at, node)
            return
        wrong = f"duplicate key {shown(key.text)}, which stands at {place(self._file, first[0])} already"
        self._complaints.add(self._file, key.at, wrong)


def _refuse_markup(event: Any) -> None:
    """Anchors and tags. A quoted scalar carries the tag `!` of the parser's own making, which nobody wrote."""
    if event.anchor is not None:
        wrong = f"an anchor (&{event.anchor}), which is not used here"
        raise _Unreadable(event.start_mark, wrong, 'the words themselves; a word that starts with & in "quotes"')
    if event.tag not in (None, "!"):
        raise _Unreadable(event.start_mark, f"a tag ({shown(event.tag)}), which is not used here", "plain words")


def _too_deep(at: Mark) -> _Unreadable:
    return _Unreadable(at, "nesting deeper than any policy needs", f"at most {_DEEPEST} levels")


def _in_words(error: Any, text: str) -> _Unreadable:
    """What people do wrong most often has words of its own; for the rest, the parser's."""
    at: Mark = error.problem_mark or error.context_mark or Spot(0, 0)
    line = _line(text, at)
    char = line[at.column : at.column + 1]
    context = error.context or ""
    if "nesting depth" in (error.problem or ""):  # newer parsers have a limit of their own and meet it first
        return _too_deep(at)
    if char == "\t":
        return _Unreadable(at, "a tab", "spaces: YAML does not admit tabs here")
    if "cannot start any token" in (error.problem or "") and char:
        return _Unreadable(at, f"a word that starts with {char}", f'the word in "quotes", if {char} belongs to it')
    if "scanning an alias" in context:
        return _Unreadable(at, "a * that is not in quotes", 'a glob that starts with * in quotes, such as "*"')
    began = error.context_mark
    if began is not None and "#" in _line(text, began):
        wrong = f"not valid YAML: {error.problem}"
        return _Unreadable(began, wrong, "quotes around a word that starts with #, which begins a comment otherwise")
    since = f" {context} that begins at line {began.line + 1}" if began is not None and context else ""
    return _Unreadable(at, f"not valid YAML: {error.problem}{since}", "YAML as in policies/README.md")


def _line(text: str, at: Mark) -> str:
    lines = text.split("\n", at.line + 1)
    return lines[at.line] if at.line < len(lines) else ""
