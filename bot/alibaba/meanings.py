"""What a refusal of the cloud means to people: code → what happened, what to do, who can do it. A table.

Codes compare without regard to case; a key that ends in ``.`` or ``*`` stands for all codes that begin so, the longest
first. What stands in braces is filled in by `codes`. The codes of rollouts, devices and packages are in `ota_meanings`.
https://www.alibabacloud.com/help/doc-detail/87387.htm, https://help.aliyun.com/document_detail/203277.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPERATOR = "whoever runs otabrake"
ACCOUNT = "an administrator of the Alibaba Cloud account"
YOU = "you"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What happened, what to do, and who can. `may_quote`: the cloud's own words may stand beside it."""

    happened: str
    remedy: str
    who: str
    may_quote: bool = True


def each(meaning: Meaning, codes: str) -> dict[str, Meaning]:
    """The same meaning for several codes."""
    return dict.fromkeys(codes.split(), meaning)


def folded_table(*tables: Mapping[str, Meaning]) -> dict[str, Meaning]:
    return {code.casefold(): meaning for table in tables for code, meaning in table.items()}


THROTTLED = Meaning(
    "Alibaba Cloud accepts no more calls of this account just now ({code}).",
    "Ask again in {pause}. If this comes often, another program uses up the account's calls.",
    YOU,
)
UNREACHABLE = Meaning(
    "Alibaba Cloud cannot be reached at {host} ({why}).",
    "Check network, DNS, proxy and firewall between otabrake and that host.",
    OPERATOR,
)
NOT_MADE = Meaning("The call was not made: {why}.", "Ask again in a few seconds.", YOU)
LOST = Meaning(
    "Alibaba Cloud's answer was lost ({why}), so what the call did is not known.",
    "See what the devices do: {see}. If this comes often, check the network to {host}.",
    YOU,
)
UNREAD = Meaning(
    "Alibaba Cloud did not tell ({why}).",
    "Ask again in a moment. If this comes often, check the network to {host}.",
    YOU,
)
FORMAT = Meaning(
    "Alibaba Cloud does not accept a value of this call ({code}).",
    "Check {names} for a missing or extra character. If all is right, this is a defect of otabrake: report it with the "
    "RequestId.",
    YOU,
)
DEFECT = Meaning(
    "Alibaba Cloud does not understand this call ({code}).",
    "This is a defect of otabrake, or of a proxy that rewrites its calls: report it with the RequestId.",
    OPERATOR,
)
_NO_V3 = Meaning(
    "The endpoint of {instance} does not understand how its calls are signed ({code}).",
    "If it takes the older scheme alone, give the instance signature: v1 in the policy folder.",
    OPERATOR,
)
BROKEN = Meaning(
    "Something broke inside Alibaba Cloud ({code}).",
    "See what the devices do ({see}), then ask again. If it stays so, open a ticket and name the RequestId.",
    YOU,
)
_WRONG_KEY = Meaning(
    "Alibaba Cloud does not accept the access key of instance {instance}.",
    "Check {prefix}_ACCESS_KEY_ID and {prefix}_ACCESS_KEY_SECRET (or what {prefix}_… names in their place), and that "
    "the key is enabled in the RAM console; then restart otabrake.",
    OPERATOR,
)
_WRONG_TOKEN = Meaning(
    "Alibaba Cloud does not accept the STS token of instance {instance}: it has expired or belongs to another key.",
    "Renew {prefix}_ACCESS_KEY_ID, {prefix}_ACCESS_KEY_SECRET and {prefix}_SECURITY_TOKEN together; then restart "
    "otabrake. A role ({prefix}_ROLE_ARN) is renewed without that.",
    OPERATOR,
)
_WRONG_SIGNATURE = Meaning(
    "Alibaba Cloud does not accept the signature of calls to instance {instance}.",
    "Most often the secret is wrong: check {prefix}_ACCESS_KEY_SECRET for a missing or extra character; then restart "
    "otabrake. A proxy that rewrites requests has the same effect.",
    OPERATOR,
    # The service explains a wrong signature with the string that was signed, key id and all: not for a channel.
    may_quote=False,
)
_NO_INSTANCE = Meaning(
    "Alibaba Cloud does not know the IoT instance of {instance}: id {instance_id} in region {region}.",
    "{instance_remedy}",
    OPERATOR,
)
_DENIED = Meaning(
    "The access key of instance {instance} may not do this: RAM denies {actions}{to_whom}.", "{permit}", ACCOUNT
)
_NO_ACCOUNT = Meaning(
    "The IoT Platform does not know the account of instance {instance}, or is not activated for it ({code}).",
    "Check that {prefix}_ACCESS_KEY_ID belongs to the right account, and that the IoT Platform is activated there.",
    OPERATOR,
)
_ARREARS = Meaning(
    "The Alibaba Cloud account of instance {instance} is in arrears, and its API calls are refused.",
    "Settle the bill in the Alibaba Cloud console, then ask again.",
    ACCOUNT,
)
_WRONG_HOST = Meaning(
    "The endpoint of instance {instance} ({host}) does not serve IoT in region {region} ({code}).",
    "Check region and endpoint of {instance} in the policy folder.",
    OPERATOR,
)

SERVICE = {
    **each(BROKEN, "iot.system.SystemException iot.system.SystemError"),
    **each(BROKEN, "ServiceUnavailable InternalError UnknownError"),
    **each(
        FORMAT, "iot.system.IllegalRequest iot.common.InvalidFormattedParameter iot.check.InvalidFormattedParameter"
    ),
    **each(FORMAT, "iot.check.NullParameter iot.common.NullParameter iot.common.ParamterError"),
    **each(_NO_INSTANCE, "iot.system.InstanceNotFound iot.Sre.IotInstanceNotFound iot.ota.InstanceIdMisMatch"),
    **each(_NO_ACCOUNT, "iot.system.UidNotFound iot.common.InvalidTenant iot.ota.TenantIdMisMatch"),
    **each(DEFECT, "iot.system.InstanceIdSame iot.common.InvalidPageParams"),
    "iot.Sre.IotInstanceStatusForbidden": Meaning(
        "The IoT instance of {instance} is in a state that forbids API calls.",
        "Look at its state in the IoT console (expired, stopped, being upgraded).",
        ACCOUNT,
    ),
    "iot.system.BillIsOverDue": _ARREARS,
    "iot.common.RamActionPermissionDeny": _DENIED,
    "iot.common.AuthActionPermissionDeny": Meaning(
        "The account of instance {instance} does not own what this call names.",
        "Check that {names} belongs to instance {instance}; name another with: on <instance>",
        YOU,
    ),
    "iot.common.APINotSupportedInInstance": Meaning(
        "The IoT instance of {instance} is of a type that has no OTA (such as an MQTT instance).",
        "Name the instance that the rollout runs on: on <instance>",
        YOU,
    ),
    "iot.common.TooManyRequest": THROTTLED,
}

GATEWAY = {
    **each(FORMAT, "Missing* Invalid* InvalidParameter*"),
    **each(_NO_V3, "MissingAction"),
    **each(DEFECT, "InvalidTimeStamp.Format UnsupportedHTTPMethod"),
    **each(_WRONG_HOST, "InvalidApi.NotFound InvalidProduct.NotFound InvalidRegion.NotFound"),
    **each(_WRONG_KEY, "InvalidAccessKeyId. Forbidden.AccessKeyDisabled"),
    **each(_WRONG_SIGNATURE, "SignatureDoesNotMatch IncompleteSignature"),
    "InvalidSignatureMethod": Meaning(
        "The endpoint of instance {instance} does not take this kind of signature.",
        "Give {instance} the other kind in the policy folder: signature: v1, or v3 where v1 stands.",
        OPERATOR,
        may_quote=False,
    ),
    **each(_WRONG_TOKEN, "MissingSecurityToken InvalidSecurityToken."),
    "SignatureNonceUsed": Meaning(
        "Alibaba Cloud has seen this very call before.", "The first copy of it arrived. See what it did: {see}", YOU
    ),
    "InvalidTimeStamp.Expired": Meaning(
        "The clock of the machine that runs otabrake is off by {skew}, and Alibaba Cloud refuses such calls.",
        "Set that machine's clock by NTP (for example: timedatectl set-ntp true), then ask again.",
        OPERATOR,
    ),
    **each(_DENIED, "Forbidden Forbidden.RAM NoPermission"),
    "Forbidden.RiskControl": Meaning(
        "Alibaba Cloud's risk control blocks the account of instance {instance}.",
        "Open a ticket with Alibaba Cloud and name the RequestId.",
        ACCOUNT,
    ),
    "InsufficientBalance": _ARREARS,
    "InvalidProtocol.NeedSsl": Meaning(
        "The endpoint of instance {instance} wants https.", "Check its endpoint in the policy folder.", OPERATOR
    ),
    "Throttling*": THROTTLED,
}
