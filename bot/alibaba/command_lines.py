"""Our calls as lines for a terminal, in the words of Alibaba's own command line: the way out when we cannot call.

A line can be copied as it stands. Whatever a name holds, it stays one word of one line. Keys are taken from that tool's
own profile. https://www.alibabacloud.com/help/en/cli/use-an-rpc-api
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from urllib.parse import urlsplit

from bot.alibaba.changes import ACTIONS, DEVICES_A_CALL, Change, change_of
from bot.errors import CloudRefused
from bot.model import Instance, Step

DEVICES_SHOWN = 10


def command_line(step: Step, instance: Instance | None) -> str:
    """The same change with Alibaba's own command line, quoted for a shell.

    Of many devices the first are named, and a remark behind ``#`` says how many are not.
    """
    shown = replace(step, devices=step.devices[:DEVICES_SHOWN])
    change = _change(shown)
    words = ["aliyun", "iot", change.action]
    if instance is not None:
        words += ["--region", instance.region]
        if instance.endpoint:
            words += ["--endpoint", host_of(instance.endpoint)]
        if instance.instance_id:
            words += ["--IotInstanceId", instance.instance_id]
    for name, value in change.params.items():
        words += [f"--{name}", value]
    line = " ".join(_quoted(word) for word in words)
    left = len(step.devices) - len(shown.devices) if "DeviceName.1" in change.params else 0
    if not left:
        return line
    return f"{line} # and {left:,} more: go on with --DeviceName.{DEVICES_SHOWN + 1}, at most {DEVICES_A_CALL} a call"


def host_of(endpoint: str) -> str:
    return urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}").netloc


def _change(step: Step) -> Change:
    """A call that the API would not take yet is shown with what is known of it: whoever copies it can add the rest."""
    try:
        return change_of(step)
    except (ValueError, CloudRefused):
        target = step.target
        known = {"ProductKey": target.product, "FirmwareId": target.firmware, "JobId": target.job}
        return Change(ACTIONS[step.kind], {name: value for name, value in known.items() if value})


def _quoted(word: str) -> str:
    """Quoted for a shell; what does not print is written out, so that it can neither break nor turn the line."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(character) for character in word) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
