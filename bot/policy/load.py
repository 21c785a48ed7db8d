"""From the files of a policy folder to a `Policy`, or to every complaint about them at once.

Bytes in, values out: `folder.read_folder` reads the disk. The language is taught in `policies/README.md`. Files are
merged by adding up; a name that is given twice is an error that names both places.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import yaml

from bot.errors import PolicyInvalid
from bot.model import Confirm, Instance, Requirements, Touch
from bot.operations import Kind, Operations
from bot.policy.document import Page, nearest
from bot.policy.rules import ANYONE, Circle, Policy, Rule, RuleKind, Span

__all__ = ["REGIONS", "Policy", "load"]

REGIONS = (
    "cn-shanghai",
    "cn-beijing",
    "cn-shenzhen",
    "ap-southeast-1",
    "ap-northeast-1",
    "us-west-1",
    "us-east-1",
    "eu-central-1",
)
"""The regions in which the IoT platform has an endpoint."""

_SECTIONS = ("groups", "instances", "rules")
_RULE_KEYS = ("name", "allow", "deny", "require", "for", "who", "where", "when", "except", "note")
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
_DEVICES_KEYS = ("more_than", "at_least", "less_than", "at_most")
_USER_ID = re.compile(r"[UW][A-Z0-9]{2,20}")
_USERGROUP_ID = re.compile(r"S[A-Z0-9]{2,20}")
_CHANNEL_ID = re.compile(r"[CG][A-Z0-9]{2,20}")
_PREFIX = re.compile(r"[A-Z][A-Z0-9_]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(slots=True)
class _Drafts:
    """What was found so far, with the place of each name."""

    groups: dict[str, Circle] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def is_new(self, page: Page, node: yaml.Node, section: str, name: str) -> bool:
        first = self.places.setdefault((section, name), page.place(node))
        if first != page.place(node):
            page.complain(node, f"{name!r} is already given at {first}; choose another name")
            return False
        return True


def load(files: Mapping[str, bytes], *, operations: Operations) -> Policy:
    """The policy in `files` (bytes by file name). Raises `PolicyInvalid` with every complaint."""
    pages = {name: Page(name) for name in sorted(files)}
    sections = {name: _sections(page, page.parse(files[name])) for name, page in pages.items()}
    drafts = _Drafts()
    for name, page in pages.items():
        if "groups" in sections[name]:
            _read_groups(page, sections[name]["groups"], drafts)
        if "instances" in sections[name]:
            _read_instances(page, sections[name]["instances"], drafts)
    accounts = _accounts_missing(pages, sections, drafts)
    for name, page in pages.items():
        if "rules" in sections[name]:
            _read_rules(page, sections[name]["rules"], drafts, operations)
    complaints = [complaint for page in pages.values() for complaint in page.complaints] + accounts
    if not complaints and not drafts.rules:
        complaints.append(
            f"{next(iter(pages), 'policy')}:1:1: there is no rule, so nobody may do anything; write `rules:`"
        )
    if complaints:
        raise PolicyInvalid(complaints)
    return _compiled(files, drafts, operations)


def _sections(page: Page, root: yaml.Node | None) -> Mapping[str, yaml.Node]:
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return {}
    return page.fields(root, _SECTIONS, "the file")


def _read_groups(page: Page, node: yaml.Node, drafts: _Drafts) -> None:
    for name, value in page.fields(node, None, "groups").items():
        if not _is_name(page, value, name, "group") or not drafts.is_new(page, value, "group", name):
            continue
        keys = page.fields(value, ("usergroup", "users"), f"group {name!r}")
        if len(keys) != 1:
            page.complain(value, f"group {name!r} must have either `usergroup: S…` or `users: [U…]`")
            continue
        if "usergroup" in keys:
            group = page.text(keys["usergroup"], "usergroup")
            ids = [(group, keys["usergroup"])] if group is not None else []
            found = _ids(page, ids, _USERGROUP_ID, "a user group's id (S…)")
            drafts.groups[name] = Circle((name,), usergroups=found)
        else:
            found = _ids(page, page.texts(keys["users"], "users"), _USER_ID, "a user's id (U… or W…)")
            drafts.groups[name] = Circle((name,), users=found)


def _ids(page: Page, texts: list[tuple[str, yaml.Node]], form: re.Pattern[str], what: str) -> frozenset[str]:
    for text, node in texts:
        if not form.fullmatch(text):
            page.complain(node, f"{text!r} is not {what}; names can change, so only ids are read")
    return frozenset(text for text, _ in texts if form.fullmatch(text))


def _is_name(page: Page, node: yaml.Node, name: str, what: str) -> bool:
    if _NAME.fullmatch(name) and name != ANYONE:
        return True
    page.complain(node, f"{name!r} cannot name a {what}; use small letters, digits, - and _")
    return False


def _read_instances(page: Page, node: yaml.Node, drafts: _Drafts) -> None:
    for name, value in page.fields(node, None, "instances").items():
        if not _is_name(page, value, name, "instance") or not drafts.is_new(page, value, "instance", name):
            continue
        instance = _instance(page, name, value)
        if instance is not None:
            drafts.instances[name] = instance


def _instance(page: Page, name: str, node: yaml.Node) -> Instance | None:
    what = f"instance {name!r}"
    keys = page.fields(node, _INSTANCE_KEYS, what)
    if not keys:
        return None
    if "region" not in keys:
        page.complain(node, f"{what} has no region; expected one of {', '.join(REGIONS)}")
        return None
    plain = ("region", "instance_id", "account", "credentials", "channel", "endpoint")
    given = {key: page.text(keys[key], key) for key in plain if key in keys}
    if "endpoint" not in keys and given["region"] is not None:
        page.word(keys["region"], REGIONS, "region")
    if given.get("endpoint"):
        _check_endpoint(page, keys["endpoint"], given["endpoint"] or "")
    if given.get("credentials") and not _PREFIX.fullmatch(given["credentials"] or ""):
        page.complain(keys["credentials"], "credentials must be the prefix of environment variables, such as PROD")
    if given.get("channel"):
        _ids(page, [(given["channel"] or "", keys["channel"])], _CHANNEL_ID, "a channel's id (C…)")
    language = page.word(keys["language"], ("en", "zh"), "language") if "language" in keys else "en"
    signature = page.word(keys["signature"], ("v3", "v1"), "signature") if "signature" in keys else "v3"
    return Instance(
        name=name,
        region=given["region"] or "",
        instance_id=given.get("instance_id"),
        account=given.get("account") or "default",
        credentials=given.get("credentials"),
        channel=given.get("channel"),
        language=language or "en",
        endpoint=given.get("endpoint"),
        signature=signature or "v3",
    )


def _check_endpoint(page: Page, node: yaml.Node, endpoint: str) -> None:
    parts = urlsplit(endpoint)
    is_loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback)):
        page.complain(node, "endpoint must be an https:// address (http:// only for this machine)")


def _accounts_missing(
    pages: Mapping[str, Page], sections: Mapping[str, Mapping[str, yaml.Node]], drafts: _Drafts
) -> list[str]:
    """With several instances each must say whose account it is: the cloud's call limits are per account."""
    if len(drafts.instances) < 2:
        return []
    found = []
    for name, page in pages.items():
        node = sections[name].get("instances")
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            keys = {each.value for each, _ in value.value} if isinstance(value, yaml.MappingNode) else {"account"}
            if "account" not in keys:
                found.append(
                    f"{page.place(value)}: instance {key.value!r} has no account; with several, each needs one"
                )
    return found


def _read_rules(page: Page, node: yaml.Node, drafts: _Drafts, operations: Operations) -> None:
    for item in page.items(node, "rules"):
        rule = _rule(page, item, drafts, operations)
        if rule is not None and drafts.is_new(page, item, "rule", rule.name):
            drafts.rules.append(rule)


def _rule(page: Page, node: yaml.Node, drafts: _Drafts, operations: Operations) -> Rule | None:
    before = len(page.complaints)
    keys = page.fields(node, _RULE_KEYS, "a rule")
    name = page.text(keys["name"], "name") if "name" in keys else None
    if name is None:
        page.complain(node, "the rule has no name; every rule needs one")
        return None
    kinds = [kind for kind in RuleKind if kind.value in keys]
    if len(kinds) != 1:
        if kinds or len(page.complaints) == before:  # else a misspelt word was complained about already
            page.complain(node, f"rule {name!r} must have exactly one of allow, deny and require")
        return None
    kind = kinds[0]
    _check_shape(page, node, keys, name, kind)
    named = keys.get("for") if kind is RuleKind.REQUIRE else keys[kind.value]
    where = page.fields(keys["where"], ("instances", "products", "channels"), "where") if "where" in keys else {}
    when = page.fields(keys["when"], ("touches", "devices"), "when") if "when" in keys else {}
    rule = Rule(
        name=name,
        kind=kind,
        operations=_operations(page, named, operations) if named is not None else frozenset(),
        who=_circle(page, keys["who"], drafts, "who") if "who" in keys else None,
        exempt=_circle(page, keys["except"], drafts, "except") if "except" in keys else None,
        instances=_instance_globs(page, where["instances"], drafts) if "instances" in where else None,
        products=tuple(text for text, _ in page.texts(where["products"], "products")) if "products" in where else None,
        channels=_channels(page, where["channels"]) if "channels" in where else None,
        touches=_touches(page, when["touches"]) if "touches" in when else None,
        devices=_span(page, when["devices"]) if "devices" in when else None,
        requirements=_requirements(page, keys["require"]) if kind is RuleKind.REQUIRE else Requirements(),
        note=page.text(keys["note"], "note") if "note" in keys else None,
    )
    return rule if len(page.complaints) == before else None


def _check_shape(page: Page, node: yaml.Node, keys: Mapping[str, yaml.Node], name: str, kind: RuleKind) -> None:
    if kind is RuleKind.ALLOW and "who" not in keys:
        page.complain(node, f"rule {name!r} allows something and must say who; write `who: [a group]`")
    if kind is RuleKind.ALLOW and "except" in keys:
        page.complain(keys["except"], "except belongs to deny and require; an allow names only whom it means")
    if kind is RuleKind.REQUIRE and "for" not in keys:
        page.complain(node, f"rule {name!r} requires something and must say for what; write `for: [job.cancel]`")
    if kind is not RuleKind.REQUIRE and "for" in keys:
        page.complain(keys["for"], f"for belongs to require; {kind} names its operations itself")


def _operations(page: Page, node: yaml.Node, operations: Operations) -> frozenset[str]:
    """`reads`, `changes`, whole names, or globs over them such as `job.*`."""
    words = {"reads": operations.names(Kind.READ), "changes": operations.names(Kind.CHANGE)}
    found: set[str] = set()
    for text, item in page.texts(node, "operations"):
        matching = words.get(text) or [name for name in operations.names() if fnmatchcase(name, text)]
        if not matching:
            page.complain(item, f"unknown operation {text!r}; {nearest(text, (*operations.names(), *words))}")
        found.update(matching)
    return frozenset(found)


def _circle(page: Page, node: yaml.Node, drafts: _Drafts, what: str) -> Circle:
    texts = page.texts(node, what)
    users, usergroups = set[str](), set[str]()
    for text, item in texts:
        if text in drafts.groups:
            users |= drafts.groups[text].users
            usergroups |= drafts.groups[text].usergroups
        elif _USER_ID.fullmatch(text):
            users.add(text)
        elif text != ANYONE:
            hint = nearest(text, (*drafts.groups, ANYONE))
            page.complain(item, f"{text!r} in {what} is neither a group of this policy nor a user's id; {hint}")
    names = tuple(text for text, _ in texts)
    return Circle(names, frozenset(users), frozenset(usergroups), is_anyone=ANYONE in names)


def _instance_globs(page: Page, node: yaml.Node, drafts: _Drafts) -> tuple[str, ...]:
    texts = page.texts(node, "instances")
    for text, item in texts:
        if not any(fnmatchcase(name, text) for name in drafts.instances):
            page.complain(item, f"no instance is called {text!r}; {nearest(text, drafts.instances)}")
    return tuple(text for text, _ in texts)


def _channels(page: Page, node: yaml.Node) -> frozenset[str]:
    return _ids(page, page.texts(node, "channels"), _CHANNEL_ID, "a channel's id (C…)")


def _touches(page: Page, node: yaml.Node) -> frozenset[Touch]:
    words = [page.word(item, [touch.value for touch in Touch], "touches") for item in page.items(node, "touches")]
    return frozenset(Touch(word) for word in words if word is not None)


def _span(page: Page, node: yaml.Node) -> Span:
    keys = page.fields(node, _DEVICES_KEYS, "devices")
    numbers = {key: page.number(value, key) for key, value in keys.items()}
    lower = [number + (key == "more_than") for key in _DEVICES_KEYS[:2] if (number := numbers.get(key)) is not None]
    upper = [number - (key == "less_than") for key in _DEVICES_KEYS[2:] if (number := numbers.get(key)) is not None]
    span = Span(max(lower, default=None), min(upper, default=None))
    if not keys:
        page.complain(node, "devices needs a bound, such as {more_than: 500}")
    elif span.least is not None and span.most is not None and span.least > span.most:
        page.complain(node, "no number lies within these bounds, so the rule can never match")
    return span


def _requirements(page: Page, node: yaml.Node) -> Requirements:
    keys = page.fields(node, ("confirm", "reason"), "require")
    if not keys:
        page.complain(node, "require needs something to require, such as {reason: true}")
    if "confirm" in keys:
        page.word(keys["confirm"], [confirm.value for confirm in Confirm], "confirm")
    reason = page.word(keys["reason"], ("true", "false"), "reason") if "reason" in keys else None
    return Requirements(Confirm.CLICK, reason=reason == "true")


def _compiled(files: Mapping[str, bytes], drafts: _Drafts, operations: Operations) -> Policy:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(len(name).to_bytes(4, "big") + name.encode() + len(files[name]).to_bytes(8, "big") + files[name])
    rules = tuple(sorted(drafts.rules, key=lambda rule: rule.name))
    circles = [circle for rule in rules for circle in (rule.who, rule.exempt) if circle is not None]
    return Policy(
        rules=rules,
        instances=drafts.instances,
        digest=digest.hexdigest(),
        usergroups=frozenset(group for circle in circles for group in circle.usergroups),
        by_operation={name: tuple(rule for rule in rules if name in rule.operations) for name in operations.names()},
    )
