"""YAML as a tree of text with places: what stands where, before anybody says what it means.

Scalars stay text, so that `NO` is a word and `22:00` a time if the schema says so. Aliases are refused: a policy says
what it means where it says it, and a file of aliases of aliases would not end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Page:
    """One file and the complaints about it, each ``file:line:column: what is wrong``."""

    name: str
    complaints: list[str] = field(default_factory=list)

    def complain(self, node: yaml.Node | None, what: str) -> None:
        mark = node.start_mark if node is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        self.complaints.append(f"{self.name}:{line}:{column}: {what}")

    def place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def parse(self, raw: bytes) -> yaml.Node | None:
        """The file's one document; None if it is empty or cannot be read as YAML."""
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            self.complaints.append(f"{self.name}:{line}:1: this is not UTF-8 text; save the file as UTF-8")
            return None
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "1:1"
            self.complaints.append(f"{self.name}:{place}: {_in_words(error)}")
        except yaml.YAMLError as error:
            self.complaints.append(f"{self.name}:1:1: this cannot be read as YAML ({str(error).splitlines()[0]})")
        except RecursionError:
            self.complaints.append(f"{self.name}:1:1: this is nested too deeply")
        else:
            return None if root is None or self._has_aliases(root) else root
        return None

    def _has_aliases(self, root: yaml.Node) -> bool:
        """Whether a node stands in two places; complains once. Each node is looked at once, however often it stands."""
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                self.complain(node, "this is used again by an alias (*name), which is not read; write it out each time")
                return True
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                waiting += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value
        return False

    def fields(self, node: yaml.Node, known: Iterable[str] | None, what: str) -> Mapping[str, yaml.Node]:
        """The entries of a mapping; `known` are the keys it may have (None: any)."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, f"{what} must be a mapping of `key: value`")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if known is not None and name not in known:
                self.complain(key, f"unknown key {name!r} in {what}; {nearest(name, known)}")
            elif name in found:
                self.complain(key, f"key {name!r} stands twice in {what}; keep one")
            else:
                found[name] = value
        return found

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The items of a list that must not be empty."""
        if not isinstance(node, yaml.SequenceNode):
            self.complain(node, f"{what} must be a list, such as [a, b]")
            return []
        if not node.value:
            self.complain(node, f"{what} must not be empty; name at least one, or leave the key out")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.complain(node, f"{what} must be a text")
            return None
        if not node.value.strip():
            self.complain(node, f"{what} must not be empty")
            return None
        return str(node.value)

    def texts(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
        return [(text, item) for item in self.items(node, what) if (text := self.text(item, what)) is not None]

    def word(self, node: yaml.Node, choices: Iterable[str], what: str) -> str | None:
        text = self.text(node, what)
        if text is None or text in choices:
            return text
        self.complain(node, f"{what} cannot be {text!r}; {nearest(text, choices)}")
        return None

    def number(self, node: yaml.Node, what: str) -> int | None:
        text = self.text(node, what)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            self.complain(node, f"{what} must be a whole number, not {text!r}")
            return None
        return int(text)


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: the one that was probably meant, or all there are."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of {', '.join(names)}" if names else "there is none to name"


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "this cannot be read as YAML")
    if "\\t" in problem or "cannot start any token" in problem:
        return f"{problem}; indent with spaces, not tabs, and quote texts that begin with a sign"
    if "expected a single document" in str(error):
        return "there is more than one document (---) in this file; split it into files"
    return problem
