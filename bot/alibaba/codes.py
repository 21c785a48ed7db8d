"""The cloud's refusals and failures put for people, and our calls put as lines for a terminal.

A table: code → what happened, what to do, who can do it. Codes compare without regard to case, a key that ends in ``.``
or ``*`` stands for all codes that begin so. A code that is not listed passes through with its message. The cloud's own
words are foreign text: one line, cut, plain. https://www.alibabacloud.com/help/doc-detail/87387.htm
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.alibaba.answers import Refusal, plain_text
from bot.alibaba.iot import cancel_flags, touched
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import Instance, Notice, Step, StepKind, Target

KEY_CHANGED = "otabrake.KeyChanged"
UNKNOWN_INSTANCE = "otabrake.UnknownInstance"
NO_CREDENTIALS = "otabrake.NoCredentials"
BAD_ENDPOINT = "otabrake.BadEndpoint"

_OPERATOR = "whoever runs otabrake"
_ACCOUNT = "an administrator of the Alibaba Cloud account"
_YOU = "you"
_ACTIONS = ("QueryOTAJob", "ListOTATaskByJob", "CancelOTATaskByJob", "CancelOTAStrategyByJob")


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What happened, what to do, and who can; ``{job}``, ``{instance}``, ``{prefix}`` … are filled in."""

    happened: str
    remedy: str
    who: str


_WRONG_KEY = _Meaning(
    "Alibaba Cloud does not accept the access key of instance {instance}.",
    "Check {prefix}_ACCESS_KEY_ID and {prefix}_ACCESS_KEY_SECRET, and that the key is enabled in the RAM console; "
    "then restart otabrake.",
    _OPERATOR,
)
_WRONG_TOKEN = _Meaning(
    "Alibaba Cloud does not accept the STS token of instance {instance}: it has expired or belongs to another key.",
    "Renew {prefix}_ACCESS_KEY_ID, {prefix}_ACCESS_KEY_SECRET and {prefix}_SECURITY_TOKEN together; then restart "
    "otabrake.",
    _OPERATOR,
)
_WRONG_SIGNATURE = _Meaning(
    "Alibaba Cloud does not accept the signature of calls to instance {instance}.",
    "Most often the secret is wrong: check {prefix}_ACCESS_KEY_SECRET for a missing or extra character; then restart "
    "otabrake. A proxy that rewrites requests has the same effect.",
    _OPERATOR,
)
_NO_INSTANCE = _Meaning(
    "Alibaba Cloud does not know the IoT instance of {instance}: id {instance_id} in region {region}.",
    "Check instance_id and region of {instance} in the policy folder against the Overview page of the IoT console. "
    "An instance that shows an id there needs instance_id; one that shows none must have none.",
    _OPERATOR,
)
_DENIED = _Meaning(
    "The access key of instance {instance} may not do this: RAM denies {actions}.",
    'Add to the RAM user\'s policy: {{"Effect":"Allow","Action":[{quoted_actions}],"Resource":"*"}}',
    _ACCOUNT,
)
_CLOCK = _Meaning(
    "The clock of the machine that runs otabrake is off by {skew}, and Alibaba Cloud refuses such calls.",
    "Set that machine's clock by NTP (for example: timedatectl set-ntp true), then ask again.",
    _OPERATOR,
)
_OVER = _Meaning("Job {job} is over already ({code}).", "See what its devices did: /ota status {job}", _YOU)
_ARREARS = _Meaning(
    "The Alibaba Cloud account of instance {instance} is in arrears, and its API calls are refused.",
    "Settle the bill in the Alibaba Cloud console, then ask again.",
    _ACCOUNT,
)
_FORMAT = _Meaning(
    "Alibaba Cloud does not accept a value of this call ({code}).",
    "Check the job id for a missing or extra character. If it is right, this is a defect of otabrake: report it with "
    "the RequestId.",
    _YOU,
)

_MEANINGS = {
    "invalidaccesskeyid.": _WRONG_KEY,
    "forbidden.accesskeydisabled": _WRONG_KEY,
    "incompletesignature": _WRONG_SIGNATURE,
    "signaturedoesnotmatch": _WRONG_SIGNATURE,
    "missingsecuritytoken": _WRONG_TOKEN,
    "invalidsecuritytoken.": _WRONG_TOKEN,
    "invalidtimestamp.expired": _CLOCK,
    "forbidden": _DENIED,
    "forbidden.ram": _DENIED,
    "nopermission": _DENIED,
    "iot.common.ramactionpermissiondeny": _DENIED,
    "iot.common.authactionpermissiondeny": _Meaning(
        "The account of instance {instance} does not own what this call names.",
        "Check that job {job} belongs to instance {instance}; name another with: on <instance>",
        _YOU,
    ),
    "iot.sre.iotinstancenotfound": _NO_INSTANCE,
    "iot.system.instancenotfound": _NO_INSTANCE,
    "iot.ota.instanceidmismatch": _NO_INSTANCE,
    "iot.sre.iotinstancestatusforbidden": _Meaning(
        "The IoT instance of {instance} is in a state that forbids API calls.",
        "Look at its state in the IoT console (expired, stopped, being upgraded).",
        _ACCOUNT,
    ),
    "iot.system.uidnotfound": _Meaning(
        "The IoT Platform is not activated for the account of instance {instance}.",
        "Check that {prefix}_ACCESS_KEY_ID belongs to the right account.",
        _OPERATOR,
    ),
    "iot.system.billisoverdue": _ARREARS,
    "insufficientbalance": _ARREARS,
    "forbidden.riskcontrol": _Meaning(
        "Alibaba Cloud's risk control blocks the account of instance {instance}.",
        "Open a ticket with Alibaba Cloud and name the RequestId.",
        _ACCOUNT,
    ),
    "iot.common.apinotsupportedininstance": _Meaning(
        "The IoT instance of {instance} is of a type that has no OTA (such as an MQTT instance).",
        "Name the instance that the rollout runs on: on <instance>",
        _YOU,
    ),
    "iot.ota.invalidjobid": _Meaning(
        "Instance {instance} has no job {job}.",
        "Check the job id for a missing character (capitals count), or name another instance: on <instance>",
        _YOU,
    ),
    "iot.ota.jobcanceled": _OVER,
    "iot.ota.jobhascanceled": _OVER,
    "iot.ota.jobhasfinished": _OVER,
    "iot.ota.nodynamicjob": _Meaning(
        "Job {job} is not a dynamic rollout, so it has no strategy to cancel.",
        "Cancel its tasks instead: /ota cancel {job}",
        _YOU,
    ),
    "iot.ota.strategynotfound": _Meaning(
        "Job {job} has no strategy any more.", "Cancel its tasks instead: /ota cancel {job}", _YOU
    ),
    "signaturenonceused": _Meaning(
        "Alibaba Cloud has seen this very call before.",
        "The first copy of it arrived. See what it did: /ota status {job}",
        _YOU,
    ),
    "invalidproduct.notfound": _Meaning(
        "The endpoint of instance {instance} does not serve IoT.",
        "Check region and endpoint of {instance} in the policy folder.",
        _OPERATOR,
    ),
    "invalidprotocol.needssl": _Meaning(
        "The endpoint of instance {instance} wants https.", "Check its endpoint in the policy folder.", _OPERATOR
    ),
    "missing*": _FORMAT,
    "invalidparameter*": _FORMAT,
    "iot.system.illegalrequest": _FORMAT,
    "iot.common.invalidformattedparameter": _FORMAT,
    "iot.check.invalidformattedparameter": _FORMAT,
    "iot.check.nullparameter": _FORMAT,
    "iot.common.nullparameter": _FORMAT,
    KEY_CHANGED.casefold(): _Meaning(
        "The access key of instance {instance} was changed while this call was under way.",
        "See what the call did (/ota status {job}), and ask again if devices still have to be stopped.",
        _YOU,
    ),
    UNKNOWN_INSTANCE.casefold(): _Meaning(
        "The policy has no instance {instance}.",
        "Check the name, or add the instance to the policy folder under instances.",
        _YOU,
    ),
    NO_CREDENTIALS.casefold(): _Meaning(
        "There is no access key for instance {instance}.",
        "Set {prefix}_ACCESS_KEY_ID and {prefix}_ACCESS_KEY_SECRET, then restart otabrake.",
        _OPERATOR,
    ),
    BAD_ENDPOINT.casefold(): _Meaning(
        "Instance {instance} cannot be called: {message}", "Correct it in the policy folder.", _OPERATOR
    ),
}
_PREFIXES = tuple((key.rstrip("*"), meaning) for key, meaning in _MEANINGS.items() if key.endswith((".", "*")))
_THROTTLED = _Meaning(
    "Alibaba Cloud accepts no more calls of this account just now ({code}).",
    "Ask again in {pause}. If this comes often, another program uses up the account's calls.",
    _YOU,
)
_UNREACHABLE = _Meaning(
    "Alibaba Cloud cannot be reached at {host} ({why}).",
    "Check network, DNS, proxy and firewall between otabrake and that host.",
    _OPERATOR,
)
_LOST = _Meaning(
    "Alibaba Cloud's answer was lost ({why}), so what the call did is not known.",
    "See what the devices do: /ota status {job}. If this comes often, check the network to {host}.",
    _YOU,
)


def explain(error: Exception, target: Target, instance: Instance | None) -> Notice:
    """What happened as a sentence; what to do and who can as lines; the RequestId as reference."""
    code = plain_text(error.code) if isinstance(error, CloudRefused) else ""
    message = plain_text(error.message) if isinstance(error, CloudRefused) else ""
    meaning = _meaning_of(error, code)
    request_id = getattr(error, "request_id", None)
    reference = plain_text(request_id) or None
    if meaning is None:
        said = f"{code}: {message}" if message else code or type(error).__name__
        lines = ("Look the code up in Alibaba Cloud's documents, or open a ticket there with the RequestId.",)
        return Notice(f"Alibaba Cloud refused ({said}).", lines, reference=reference)
    facts = _facts(error, target, instance) | {"code": code, "message": message}
    # The service explains a wrong signature with the string that was signed, key id and all: not for a channel.
    is_foreign = message and not code.startswith("otabrake.") and meaning is not _WRONG_SIGNATURE
    quoted = (f"Alibaba Cloud says: {code}: {message}",) if is_foreign else ()
    return Notice(
        meaning.happened.format_map(facts),
        (f"What to do: {meaning.remedy.format_map(facts)}", f"Who can: {meaning.who}", *quoted),
        reference=reference,
    )


def command_line(step: Step, instance: Instance | None) -> str:
    """The same change with Alibaba's own command line, quoted for a shell. Keys are taken from its own profile."""
    is_strategy = step.kind is StepKind.CANCEL_STRATEGY
    words = ["aliyun", "iot", "CancelOTAStrategyByJob" if is_strategy else "CancelOTATaskByJob"]
    if instance is not None:
        words += ["--region", instance.region]
        if instance.endpoint:
            words += ["--endpoint", _host_of(instance.endpoint)]
        if instance.instance_id:
            words += ["--IotInstanceId", instance.instance_id]
    words += ["--JobId", step.target.job]
    if not is_strategy:
        for name, value in cancel_flags(**touched(step.touches)).items():
            words += [f"--{name}", value]
    return shlex.join(words)


def _meaning_of(error: Exception, code: str) -> _Meaning | None:
    if isinstance(error, CloudThrottled):
        return _THROTTLED
    if isinstance(error, CloudUnreachable):
        return _UNREACHABLE
    if isinstance(error, CloudLost):
        return _LOST
    name = code.casefold()
    return _MEANINGS.get(name) or next((meaning for prefix, meaning in _PREFIXES if name.startswith(prefix)), None)


def _facts(error: Exception, target: Target, instance: Instance | None) -> dict[str, str]:
    asked = error.action if isinstance(error, Refusal) else None
    actions = [f"iot:{action}" for action in ([asked] if asked else _ACTIONS)]
    return {
        "job": plain_text(target.job),
        "instance": plain_text(target.instance),
        "instance_id": (instance.instance_id if instance else None) or "none",
        "region": instance.region if instance else "unknown",
        "host": _host(instance),
        "prefix": (instance.credentials if instance else None) or "ALIBABA_CLOUD",
        "actions": ", ".join(actions),
        "quoted_actions": ",".join(f'"{action}"' for action in actions),
        "skew": _skew(error),
        "pause": _pause(error),
        "why": plain_text(str(error)),
    }


def _host(instance: Instance | None) -> str:
    if instance is None:
        return "its endpoint"
    return _host_of(instance.endpoint or f"iot.{instance.region}.aliyuncs.com")


def _host_of(endpoint: str) -> str:
    return urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}").netloc


def _skew(error: Exception) -> str:
    ahead = error.clock_ahead_seconds if isinstance(error, Refusal) else None
    if ahead is None:
        return "more than 15 minutes"
    return f"{round(abs(ahead) / 60)} minutes ({'ahead' if ahead > 0 else 'behind'})"


def _pause(error: Exception) -> str:
    seconds = error.retry_after_seconds if isinstance(error, CloudThrottled) else None
    return f"{max(1, round(seconds))} seconds" if seconds else "a few seconds"
