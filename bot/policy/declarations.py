"""Reading `groups:` and `instances:` of one file.

Names are kept even where their content is wrong, so that a rule which uses them is not complained about as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from bot.model import REGIONS, Instance
from bot.policy.complaints import Mark, shown
from bot.policy.nodes import Node, Scalar
from bot.policy.reading import Page, fields, is_empty, named, one_of, shaped, words
from bot.policy.rules import ANYONE, TERMINAL_ID, USER_ID, Group, listed

CHANNEL_ID = re.compile(r"[CG][A-Z0-9]{2,20}")
CHANNEL_EXPECTED = "a channel's id such as C0INCIDENT (Slack shows it at the foot of the channel's details)"
USERGROUP_ID = re.compile(r"S[A-Z0-9]{2,20}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_EXPECTED = "letters, digits, dots, dashes and underscores, at most 64"
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PREFIX = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_GROUP_KEYS = ("usergroup", "users", "terminal")
_INSTANCE_KEYS = (
    "region",
    "instance_id",
    "account",
    "credentials",
    "channel",
    "language",
    "endpoint",
    "signature",
)


def read_group(page: Page, name: str, at: Mark, node: Node) -> Group:
    """One group. Complains about a name that could be taken for something else."""
    _check_name(page, name, at, of="a group's name")
    if name == ANYONE or USER_ID.fullmatch(name) or USERGROUP_ID.fullmatch(name):
        page.wrong(at, f"a group named {shown(name)}", expected="a name that is neither an id nor anyone")
    found = fields(page, node, of=f"the group {shown(name)}", known=_GROUP_KEYS)
    if len(found) != 1:
        if found or is_empty(node):
            expected = f"one of {listed(_GROUP_KEYS)}; a rule may name several groups"
            page.wrong(node.at, f"the group {shown(name)} has {_which(found)}", expected=expected)
        return Group(name)
    if "usergroup" in found:
        expected = "a user group's id such as S0614TZAA (Slack: the group's page, Copy group ID)"
        return Group(name, shaped(page, found["usergroup"][1], USERGROUP_ID, of="usergroup", expected=expected))
    if "terminal" in found:
        people = words(page, found["terminal"][1], of="terminal")
        return Group(name, terminal=frozenset(_terminal_id(page, word) for word in people))
    people = words(page, found["users"][1], of="users")
    return Group(name, users=frozenset(_user_id(page, word) for word in people))


def _which(found: Mapping[str, object]) -> str:
    return " and ".join(found) or "no members"


def _user_id(page: Page, word: Scalar) -> str:
    if not USER_ID.fullmatch(word.text):
        page.wrong(
            word.at,
            f"{shown(word.text)} in users is not an id",
            expected="a user's id such as U012AB3CD (Slack: the profile's menu, Copy member ID)",
        )
    return word.text


def _terminal_id(page: Page, word: Scalar) -> str:
    if not TERMINAL_ID.fullmatch(word.text):
        page.wrong(
            word.at,
            f"{shown(word.text)} in terminal is not a person at a machine",
            expected="the OS user and the machine's short name in small letters, such as alice@ops1 (there: id -un, "
            "hostname -s)",
        )
    return word.text


def read_instance(page: Page, name: str, at: Mark, node: Node) -> tuple[Instance, bool]:
    """One instance, and whether it names its account."""
    _check_name(page, name, at, of="an instance's name")
    found = fields(page, node, of=f"the instance {shown(name)}", known=_INSTANCE_KEYS)

    def word(key: str, shape: re.Pattern[str] = _WORD, expected: str = "one word") -> str | None:
        return shaped(page, found[key][1], shape, of=key, expected=expected) if key in found else None

    def choice(key: str, right: tuple[str, ...]) -> str:
        return (one_of(page, found[key][1], right, of=key) if key in found else None) or right[0]

    endpoint = _read_endpoint(page, found["endpoint"][1]) if "endpoint" in found else None
    instance = Instance(
        name=name,
        region=_read_region(page, name, node, found) or REGIONS[0],
        instance_id=word("instance_id"),
        account=word("account") or "default",
        credentials=_read_credentials(page, found["credentials"][1]) if "credentials" in found else None,
        channel=word("channel", CHANNEL_ID, CHANNEL_EXPECTED),
        language=choice("language", ("en", "zh")),
        endpoint=endpoint,
        signature=choice("signature", ("v3", "v1")),
    )
    return instance, "account" in found


def _read_region(page: Page, name: str, node: Node, found: Mapping[str, tuple[Mark, Node]]) -> str | None:
    """The known eight, or any word beside an endpoint of one's own."""
    if "region" not in found:
        if found or is_empty(node):
            page.wrong(
                node.at, f"the instance {shown(name)} has no region", expected=f"region: {REGIONS[0]} or another"
            )
        return None
    if "endpoint" in found:
        return shaped(page, found["region"][1], _WORD, of="region", expected="one word")
    return one_of(page, found["region"][1], REGIONS, of="region")


def _read_credentials(page: Page, node: Node) -> str | None:
    """A prefix. What was written instead is not repeated: it may be a key."""
    if isinstance(node, Scalar) and _PREFIX.fullmatch(node.text):
        return node.text
    page.wrong(
        node.at,
        "credentials is not a prefix of environment variables",
        expected="capitals such as PROD, for PROD_ACCESS_KEY_ID and PROD_ACCESS_KEY_SECRET; no key stands in a policy",
    )
    return None


def _read_endpoint(page: Page, node: Node) -> str | None:
    expected = "https://host or https://host:port (http:// for this machine alone)"
    written = node.text if isinstance(node, Scalar) else ""
    try:
        url = urlsplit(written if "://" in written else f"https://{written}")
        is_safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
        is_bare = url.path in ("", "/") and not (url.query or url.fragment or url.username or url.password)
        is_sound = bool(url.hostname) and is_safe and is_bare and url.port != 0 and not re.search(r"[\s\\]", written)
    except ValueError:
        is_sound = False
    if is_sound:
        return written
    page.wrong(node.at, f"endpoint is {_without_login(written)}", expected=expected)
    return None


def _without_login(url: str) -> str:
    return shown(re.sub(r"//.*@", "//…@", url)) if url else "empty"


def _check_name(page: Page, name: str, at: Mark, *, of: str) -> None:
    if not _NAME.fullmatch(name):
        page.wrong(at, f"{of} is {shown(name)}", expected=_NAME_EXPECTED)


def read_groups(page: Page, node: Node) -> dict[str, tuple[Mark, Group]]:
    return {name: (at, read_group(page, name, at, part)) for name, (at, part) in named(page, node, of="groups").items()}


def read_instances(page: Page, node: Node) -> dict[str, tuple[Mark, tuple[Instance, bool]]]:
    return {
        name: (at, read_instance(page, name, at, part))
        for name, (at, part) in named(page, node, of="instances").items()
    }
