"""The cloud's refusals and failures as sentences, and our calls as lines for a terminal."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace

import pytest

from bot.alibaba.answers import Denial, NotMade, Refusal
from bot.alibaba.codes import command_line, explain
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import Instance, JobSettings, Step, StepKind, Target, Touch

INSTANCE = Instance("prod", "cn-shanghai", instance_id="iot-060a0001", credentials="PROD")
TARGET = Target("prod", "j1")


def told(error: Exception, *, instance: Instance | None = INSTANCE) -> str:
    notice = explain(error, TARGET, instance)
    return "\n".join((notice.text, *notice.lines))


# Every code of the reference, by the table it stands in, and words that its notice must hold.
CATALOGUE = {
    # IoT service-wide
    "iot.system.SystemException": "Something broke inside Alibaba Cloud",
    "iot.system.SystemError": "Something broke inside Alibaba Cloud",
    "iot.system.IllegalRequest": "does not accept a value",
    "iot.system.InstanceNotFound": "does not know the IoT instance of prod: id iot-060a0001 in region cn-shanghai",
    "iot.Sre.IotInstanceNotFound": "Check instance_id and region of prod in the policy folder",
    "iot.Sre.IotInstanceStatusForbidden": "in a state that forbids API calls",
    "iot.system.UidNotFound": "not activated",
    "iot.system.InstanceIdSame": "defect of otabrake",
    "Iot.system.BillIsOverDue": "in arrears",
    "iot.common.RamActionPermissionDeny": "RAM denies",
    "iot.common.AuthActionPermissionDeny": "does not own what this call names",
    "iot.common.InvalidTenant": "does not know the account",
    "iot.common.InvalidPageParams": "defect of otabrake",
    "iot.common.InvalidFormattedParameter": "does not accept a value",
    "iot.check.InvalidFormattedParameter": "does not accept a value",
    "iot.check.NullParameter": "does not accept a value",
    "IoT.Common.NullParameter": "does not accept a value",
    "IoT.Common.ParamterError": "does not accept a value",
    "iot.common.APINotSupportedInInstance": "of a type that has no OTA",
    "iot.common.TooManyRequest": "accepts no more calls of this account just now",
    "iot.prod.NotExistedProduct": "has no such product",
    "iot.prod.NullProductKey": "does not accept a value",
    "iot.prod.InvalidFormattedProductkey": "does not accept a value",
    "iot.device.NotExistedDevice": "has no such device",
    "iot.device.NullDeviceName": "does not accept a value",
    "iot.device.NoneDeviceNameElement": "does not accept a value",
    "iot.device.InvalidFormattedDeviceNameInNameArray": "does not accept a value",
    "iot.device.TooManyDeviceNamesPerRequest": "more devices or tasks than Alibaba Cloud takes",
    "iot.device.InvalidIoTId": "has no such device",
    # OTA
    "iot.ota.InvalidJobId": "Instance prod has no job j1.",
    "iot.ota.JobCanceled": "Job j1 is over already",
    "iot.ota.JobHasCanceled": "Job j1 is over already",
    "iot.ota.JobHasFinished": "Job j1 is over already",
    "iot.ota.noDynamicJob": "Job j1 is not a dynamic rollout",
    "iot.ota.StrategyNotFound": "Job j1 has no strategy any more",
    "iot.ota.taskNotExist": "Some of these tasks do not belong to job j1",
    "iot.ota.UnmatchedJob": "Some of these tasks do not belong to job j1",
    "iot.ota.InvalidTaskId": "Some of these tasks do not belong to job j1",
    "iot.ota.InvalidTaskExist": "Some of these tasks do not belong to job j1",
    "iot.ota.FailedTaskNotFound": "Job j1 has no task that can be run again",
    "iot.ota.DeviceNotReUpgraded": "Job j1 has no task that can be run again",
    "iot.ota.DeviceNotExist": "has no such device",
    "iot.ota.TooManyOtaTask": "more devices or tasks than Alibaba Cloud takes",
    "iot.ota.FirmwareNotVerified": "The package of job j1 is not verified",
    "iot.ota.NotFirmwareOwner": "may not use such firmware",
    "iot.ota.InvalidFirmwareUid": "has no such firmware",
    "iot.ota.FirmwareNotFound": "has no such firmware",
    "iot.ota.FirmwareAndProductKeyMismatch": "does not belong to that product",
    "iot.ota.InstanceIdMisMatch": "does not know the IoT instance of prod",
    "iot.ota.TenantIdMisMatch": "does not know the account",
    "iot.ota.OperationForbidden": "forbids this for the tenant",
    "iot.ota.InvalidUpgradeType": "does not accept a setting of job j1",
    "iot.ota.InvalidStrategyType": "does not accept a setting of job j1",
    "iot.ota.InvalidTimeout": "does not accept a setting of job j1",
    "iot.ota.InvalidMaximumPerMinute": "10 to 10,000 devices a minute",
    "iot.ota.InvalidSrcVersionList": "does not accept a setting of job j1",
    "iot.ota.EmptySrcVersionList": "does not accept a setting of job j1",
    "iot.ota.JobTagIsTooLong": "does not accept a setting of job j1",
    "iot.ota.InvalidBaseRatePerMinute": "does not accept a setting of job j1",
    "iot.ota.InvalidBaseSpeedPerMinute": "does not accept a setting of job j1",
    "iot.ota.InvalidConstantSpeedParameter": "does not accept a setting of job j1",
    "iot.ota.InvalidExponentialRateParameter": "does not accept a setting of job j1",
    "iot.ota.InvalidIncrementFactor": "does not accept a setting of job j1",
    "iot.ota.EmptyNumberOfNotifiedDevicesAndNumberOfSucceedDevices": "does not accept a setting of job j1",
    "iot.ota.InvalidNumberOfNotifiedDevicesOrNumberOfSucceedDevices": "does not accept a setting of job j1",
    "iot.ota.NullOtaModuleName": "how the device or its module is named",
    "iot.ota.InvalidOtaModuleName": "how the device or its module is named",
    "iot.ota.EmptyDeviceInfoParams": "how the device or its module is named",
    "iot.firmware.InvalidTaskStatus": "defect of otabrake",
    "iot.firmware.ListOTATaskByDeviceFailed": "Something broke inside Alibaba Cloud",
    "iot.firmware.AlreadyExistedFirmwareName": "name or description of a package",
    "iot.firmware.IncorrectFormattedFirmwareName": "name or description of a package",
    "iot.firmware.FirmwareDescExceedLimit": "name or description of a package",
    "iot.firmware.FirmwareUdiExceedLimit": "name or description of a package",
    # The gateway
    "MissingJobId": "does not accept a value of this call (MissingJobId)",
    "MissingFirmwareId": "does not accept a value",
    "InvalidJobId": "does not accept a value",
    "InvalidParameter": "does not accept a value",
    "InvalidParameter.Format": "does not accept a value",
    "InvalidApi.NotFound": "Check region and endpoint of prod",
    "InvalidProduct.NotFound": "does not serve IoT in region cn-shanghai",
    "InvalidRegion.NotFound": "does not serve IoT in region cn-shanghai",
    "InvalidAccessKeyId.NotFound": "Check PROD_ACCESS_KEY_ID and PROD_ACCESS_KEY_SECRET",
    "InvalidAccessKeyId.Inactive": "the key is enabled in the RAM console",
    "Forbidden.AccessKeyDisabled": "the key is enabled in the RAM console",
    "SignatureDoesNotMatch": "check PROD_ACCESS_KEY_SECRET",
    "IncompleteSignature": "check PROD_ACCESS_KEY_SECRET",
    "InvalidSignatureMethod": "signature: v1",
    "UnsupportedHTTPMethod": "defect of otabrake",
    "SignatureNonceUsed": "The first copy of it arrived",
    "InvalidTimeStamp.Format": "defect of otabrake",
    "InvalidTimeStamp.Expired": "off by more than 15 minutes",
    "MissingSecurityToken": "PROD_SECURITY_TOKEN",
    "InvalidSecurityToken.Malformed": "PROD_SECURITY_TOKEN",
    "InvalidSecurityToken.MismatchWithAccessKey": "PROD_SECURITY_TOKEN",
    "InvalidSecurityToken.Expired": "PROD_SECURITY_TOKEN",
    "Forbidden.RAM": "RAM denies",
    "Forbidden": "RAM denies",
    "NoPermission": "RAM denies",
    "Forbidden.RiskControl": "risk control",
    "InsufficientBalance": "in arrears",
    "InvalidProtocol.NeedSsl": "wants https",
    # Throttling and the server
    "Throttling.User": "accepts no more calls of this account just now (Throttling.User)",
    "Throttling.Api": "accepts no more calls of this account just now",
    "Throttling": "accepts no more calls of this account just now",
    "ServiceUnavailable": "Something broke inside Alibaba Cloud",
    "InternalError": "Something broke inside Alibaba Cloud",
    "UnknownError": "Something broke inside Alibaba Cloud",
    # Our own
    "otabrake.KeyChanged": "was changed while this call was under way",
    "otabrake.UnknownInstance": "The policy has no instance prod",
    "otabrake.NoCredentials": "There is no access key for instance prod",
    "otabrake.KeyUnavailable": "could not be fetched (in the cloud's words)",
    "otabrake.KeyEnded": "has ended (in the cloud's words)",
    "otabrake.BadEndpoint": "cannot be called: in the cloud's words",
    "otabrake.IncompleteAnswer": "The call could not be made: in the cloud's words.",
}
UNQUOTED = ("SignatureDoesNotMatch", "IncompleteSignature", "InvalidSignatureMethod")
TARGETS = {
    "job": TARGET,
    "firmware": Target("prod", firmware="fw1"),
    "devices": Target("prod", product="a1Gw", devices=("d1", "d2", "d3")),
    "nothing": Target("prod"),
    "all": Target("prod", "j1", "fw1", "a1Gw", ("d1",)),
}


@pytest.mark.parametrize(("code", "words"), CATALOGUE.items())
def test_a_known_code_says_what_happened_what_to_do_and_who_can(code: str, words: str) -> None:
    notice = explain(CloudRefused(code, "in the cloud's words", request_id="AB-1"), TARGET, INSTANCE)
    text = "\n".join((notice.text, *notice.lines))
    assert words in text
    assert notice.lines[0].startswith("What to do: ")
    assert notice.lines[1].startswith("Who can: ")
    assert notice.reference == "AB-1"
    is_quoted = not code.startswith("otabrake.") and code not in UNQUOTED
    assert (f"Alibaba Cloud says: {code}: in the cloud's words" in text) is is_quoted


@pytest.mark.parametrize("code", CATALOGUE)
def test_no_code_depends_on_how_it_is_capitalised(code: str) -> None:
    for spelt in (code.upper(), code.lower()):
        assert "Who can: " in told(CloudRefused(spelt, ""))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_every_sentence_reads_right_whatever_the_target_is(target: Target) -> None:
    errors = [CloudRefused(code, "m") for code in CATALOGUE]
    for error in (*errors, CloudLost("x"), CloudThrottled("Throttling", ""), CloudUnreachable("x"), NotMade("x")):
        notice = explain(error, target, INSTANCE)
        text = "\n".join((notice.text, *notice.lines))
        assert not re.search(r"\{[a-z_]+\}|  | [.,;:)]|\(\)", text), text
        assert not re.search(r"/ota (status|cancel|device)\s*(\n|$|[.,)])", text), text
        assert notice.text[0].isupper()


@pytest.mark.parametrize(
    ("target", "look"),
    [
        (TARGET, "/ota status j1"),
        (TARGETS["firmware"], "/ota jobs fw1"),
        (TARGETS["devices"], "/ota device a1Gw d1"),
        (TARGETS["nothing"], "/ota jobs"),
    ],
)
def test_where_to_look_fits_what_was_asked_for(target: Target, look: str) -> None:
    notice = explain(CloudLost("no answer"), target, INSTANCE)
    assert f"See what the devices do: {look}. " in notice.lines[0]


@pytest.mark.parametrize(
    ("code", "target", "words"),
    [
        ("iot.ota.InvalidJobId", TARGETS["firmware"], "Instance prod has no such job."),
        ("iot.ota.FirmwareNotFound", TARGETS["firmware"], "has no firmware fw1 ("),
        ("iot.device.NotExistedDevice", TARGETS["devices"], "has no device d1 and 2 more ("),
        ("iot.prod.NotExistedProduct", TARGETS["devices"], "has no product a1Gw ("),
        ("iot.ota.JobHasFinished", TARGETS["firmware"], "The job is over already"),
        ("MissingDeviceName", TARGETS["all"], "Check job j1 and firmware fw1 and product a1Gw and device d1 for a"),
        ("MissingDeviceName", TARGETS["nothing"], "Check what was typed for a"),
        ("iot.ota.StrategyNotFound", TARGETS["firmware"], "/ota cancel <job>"),
    ],
)
def test_a_sentence_names_what_was_asked_for(code: str, target: Target, words: str) -> None:
    notice = explain(CloudRefused(code, ""), target, INSTANCE)
    assert words in "\n".join((notice.text, *notice.lines))


def test_an_instance_without_an_id_is_told_where_to_find_it() -> None:
    text = told(CloudRefused("iot.Sre.IotInstanceNotFound", ""), instance=Instance("old", "cn-beijing"))
    assert "id none in region cn-beijing" in text
    assert "gives old no instance_id: copy the id from the Overview page" in text
    assert "Check instance_id and region" in told(CloudRefused("iot.Sre.IotInstanceNotFound", ""), instance=None)


def test_an_unknown_refusal_by_ram_names_all_that_is_ever_needed() -> None:
    text = told(CloudRefused("Forbidden.RAM", "no"))
    assert '"Action":["iot:QueryOTAJob"' in text
    assert "iot:ReupgradeOTATask" in text


DENIAL = Denial("iot:CancelOTATaskByJob", "bot-user", "ImplicitDeny", "AccountLevelIdentityBasedPolicy")


def test_what_ram_told_of_a_refusal_is_shown_with_the_policy_that_would_permit_it() -> None:
    text = told(Refusal("Forbidden.RAM", "no", action="QueryOTAJob", denial=DENIAL))
    assert "RAM denies iot:CancelOTATaskByJob to bot-user." in text
    assert '{"Version":"1","Statement":[{"Effect":"Allow","Action":["iot:CancelOTATaskByJob"],"Resource":"*"}]}' in text
    assert "RAM says: iot:CancelOTATaskByJob, bot-user, ImplicitDeny, AccountLevelIdentityBasedPolicy" in text


def test_what_a_policy_forbids_is_not_mended_by_allowing_it() -> None:
    text = told(Refusal("NoPermission", "no", denial=replace(DENIAL, kind="ExplicitDeny")))
    assert "take iot:CancelOTATaskByJob out of the statement with Effect Deny" in text
    assert '"Allow"' not in text


def test_a_hostile_action_gets_into_no_policy() -> None:
    denial = Denial('iot:*","ram:*')
    text = told(Refusal("Forbidden.RAM", "no", action="QueryOTAJob", denial=denial))
    assert '"Action":["iot:QueryOTAJob"]' in text


def test_a_call_that_was_not_made_is_not_blamed_on_the_network() -> None:
    notice = explain(NotMade("account prod is at its limit of QueryOTAJob calls a second"), TARGET, INSTANCE)
    assert notice.text == "The call was not made: account prod is at its limit of QueryOTAJob calls a second."


def test_a_denied_action_is_named_alone_where_it_is_known() -> None:
    text = told(Refusal("Forbidden.RAM", "no", action="CancelOTATaskByJob"))
    assert '{"Effect":"Allow","Action":["iot:CancelOTATaskByJob"],"Resource":"*"}' in text
    assert "QueryOTAJob" not in text


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(3600.0, "60 minutes (ahead)"), (-1800.0, "30 minutes (behind)"), (-28_800.0, "8 hours (behind)")],
)
def test_a_clock_that_is_off_is_measured_where_it_can_be(ahead: float, words: str) -> None:
    assert words in told(Refusal("InvalidTimeStamp.Expired", "…", clock_ahead_seconds=ahead))


@pytest.mark.parametrize(("seconds", "words"), [(None, "a few seconds"), (0.2, "1 second."), (7.0, "7 seconds")])
def test_throttling_says_when_to_ask_again(seconds: float | None, words: str) -> None:
    error = CloudThrottled("Throttling.User", "slow", retry_after_seconds=seconds)
    assert f"Ask again in {words}" in told(error)


def test_an_unreachable_cloud_names_its_host() -> None:
    text = told(CloudUnreachable("ConnectError: refused"))
    assert "iot.cn-shanghai.aliyuncs.com" in text
    assert "refused" in text
    assert "proxy.example.com:8443" in told(
        CloudUnreachable("x"), instance=Instance("a", "b", endpoint="https://proxy.example.com:8443")
    )


def test_a_lost_answer_says_that_the_effect_is_not_known() -> None:
    notice = explain(CloudLost("no answer within 10 s", request_id="AB-7"), TARGET, INSTANCE)
    assert "not known" in notice.text
    assert notice.reference == "AB-7"


def test_an_unlisted_code_passes_through_with_its_message_and_reference() -> None:
    notice = explain(CloudRefused("iot.new.Thing", "something else", request_id="AB-8"), TARGET, INSTANCE)
    assert notice.text == "Alibaba Cloud refused (iot.new.Thing: something else)."
    assert notice.reference == "AB-8"


@pytest.mark.parametrize("error", [CloudRefused("iot.new.Thing", ""), ValueError("x")], ids=["no message", "other"])
def test_whatever_comes_is_put_into_a_sentence(error: Exception) -> None:
    assert told(error).startswith("Alibaba Cloud refused (")


@pytest.mark.parametrize("code", ["iot.new.Thing", "iot.ota.InvalidJobId", "x\u202e{job}\n"])
def test_the_words_of_the_cloud_are_cut_and_made_plain(code: str) -> None:
    error = CloudRefused(code, "line\nbreak \x1b[31m \u202e {instance} " + "x" * 10_000, request_id="AB\n-1")
    foreign = "\u202e{x}\n" + "y" * 10_000
    notice = explain(error, Target("p\nq", "{secret}", foreign, foreign, (foreign, foreign)), None)
    parts = (notice.text, *notice.lines, notice.reference or "")
    assert all(part.isprintable() and len(part) < 800 for part in parts)


def test_an_instance_without_a_prefix_has_the_usual_variables() -> None:
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" in told(CloudRefused("InvalidAccessKeyId.NotFound", ""), instance=None)


def test_a_cancel_is_written_as_a_line_for_the_terminal() -> None:
    step = Step(StepKind.CANCEL_TASKS, TARGET, frozenset({Touch.QUEUED, Touch.NOTIFIED}))
    assert command_line(step, INSTANCE) == (
        "aliyun iot CancelOTATaskByJob --region cn-shanghai --IotInstanceId iot-060a0001 --JobId j1 "
        "--CancelQueuedTask true --CancelNotifiedTask true --CancelUnconfirmedTask false"
    )


def test_a_strategy_is_written_as_a_line_for_the_terminal() -> None:
    line = command_line(Step(StepKind.CANCEL_STRATEGY, TARGET), Instance("a", "eu-central-1", endpoint="https://h:1/"))
    assert line == "aliyun iot CancelOTAStrategyByJob --region eu-central-1 --endpoint h:1 --JobId j1"


def test_a_job_id_cannot_leave_its_place_in_the_line() -> None:
    hostile = "j1; rm -rf ~ $(x) `y` 'z'"
    step = Step(StepKind.CANCEL_TASKS, Target("prod", hostile), frozenset({Touch.QUEUED}))
    words = shlex.split(command_line(step, None))
    assert words[words.index("--JobId") + 1] == hostile


DEVICES = tuple(f"d{number}" for number in range(1, 201))
STOP_DEVICES = Step(StepKind.CANCEL_DEVICES, Target("prod", "j1", "fw1", "a1Gw"), devices=DEVICES)


def test_devices_are_written_as_a_line_for_the_terminal() -> None:
    assert command_line(replace(STOP_DEVICES, devices=("d1", "d 2")), INSTANCE) == (
        "aliyun iot CancelOTATaskByDevice --region cn-shanghai --IotInstanceId iot-060a0001 --ProductKey a1Gw "
        "--FirmwareId fw1 --JobId j1 --DeviceName.1 d1 --DeviceName.2 'd 2'"
    )


def test_of_many_devices_the_first_are_written_and_the_others_counted_in_a_remark() -> None:
    line = command_line(STOP_DEVICES, INSTANCE)
    written, _, remark = line.partition(" # ")
    assert written.endswith("--DeviceName.9 d9 --DeviceName.10 d10")
    assert remark == "and 190 more: go on with --DeviceName.11, at most 200 a call"
    assert shlex.split(line, comments=True) == shlex.split(written)
    assert "#" not in command_line(replace(STOP_DEVICES, devices=DEVICES[:10]), INSTANCE)


def test_tasks_to_run_again_are_written_as_a_line_for_the_terminal() -> None:
    step = Step(StepKind.RETRY_TASKS, TARGET, devices=DEVICES[:2], tasks=("t1", "t2"))
    assert command_line(step, None) == "aliyun iot ReupgradeOTATask --JobId j1 --TaskId.1 t1 --TaskId.2 t2"


def test_a_rate_is_written_with_all_settings_and_tags() -> None:
    settings = JobSettings(10, 60, "ALL", "DYNAMIC", ("1.0", "1.1"), (("team", "gate way"), ("k", "v")))
    assert command_line(Step(StepKind.SET_RATE, TARGET, settings=settings), None) == (
        "aliyun iot UpdateOTAJob --JobId j1 --MaximumPerMinute 10 --TargetSelection ALL --UpgradeType DYNAMIC "
        "--TimeoutInMinutes 60 --SrcVersionList.1 1.0 --SrcVersionList.2 1.1 --Tags.1.Key team "
        "--Tags.1.Value 'gate way' --Tags.2.Key k --Tags.2.Value v"
    )


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Step(StepKind.CANCEL_TASKS, TARGET), "aliyun iot CancelOTATaskByJob --JobId j1"),
        (Step(StepKind.SET_RATE, TARGET), "aliyun iot UpdateOTAJob --JobId j1"),
        (replace(STOP_DEVICES, target=TARGET), "aliyun iot CancelOTATaskByDevice --JobId j1"),
    ],
)
def test_a_call_that_lacks_something_is_written_as_far_as_it_is_known(step: Step, line: str) -> None:
    assert command_line(step, None) == line


@pytest.mark.parametrize("name", ["a\nb", "é'\\\u202e\x1b[31m $(x)", "🚀\ttab", "plain é 🚀"])
def test_a_name_is_one_word_of_one_line_that_a_shell_reads_back_as_it_was(name: str) -> None:
    line = command_line(Step(StepKind.CANCEL_STRATEGY, Target("prod", name)), None)
    assert line.isprintable()
    said = subprocess.run(
        ["bash", "-c", f"aliyun() {{ printf '%s|' \"$@\"; }}; {line}"],
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=30,
    )
    assert said.stdout.decode() == f"iot|CancelOTAStrategyByJob|--JobId|{name}|"


def test_the_string_that_was_signed_is_not_shown_with_a_wrong_signature() -> None:
    error = CloudRefused("SignatureDoesNotMatch", "server string to sign is:POST&%2F&AccessKeyId%3Dtestid", status=400)
    assert "AccessKeyId" not in repr(explain(error, TARGET, INSTANCE))
