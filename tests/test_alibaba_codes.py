"""The cloud's refusals and failures as sentences, and our calls as lines for a terminal."""

from __future__ import annotations

import shlex

import pytest

from bot.alibaba.answers import Refusal
from bot.alibaba.codes import command_line, explain
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import Instance, Step, StepKind, Target, Touch

INSTANCE = Instance("prod", "cn-shanghai", instance_id="iot-060a0001", credentials="PROD")
TARGET = Target("prod", "j1")


def told(error: Exception, *, instance: Instance | None = INSTANCE) -> str:
    notice = explain(error, TARGET, instance)
    return "\n".join((notice.text, *notice.lines))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidAccessKeyId.NotFound", ["access key of instance prod", "PROD_ACCESS_KEY_ID", "runs otabrake"]),
        ("InvalidAccessKeyId.Inactive", ["enabled in the RAM console"]),
        ("SignatureDoesNotMatch", ["signature", "PROD_ACCESS_KEY_SECRET"]),
        ("InvalidSecurityToken.Expired", ["PROD_SECURITY_TOKEN"]),
        ("InvalidTimeStamp.Expired", ["off by more than 15 minutes", "NTP"]),
        ("Forbidden.RAM", ["RAM denies iot:QueryOTAJob", '"Action":["iot:QueryOTAJob"', "administrator"]),
        ("iot.common.RamActionPermissionDeny", ["RAM denies"]),
        ("iot.Sre.IotInstanceNotFound", ["iot-060a0001", "cn-shanghai", "policy folder"]),
        ("IOT.System.InstanceNotFound", ["iot-060a0001"]),
        ("iot.ota.InvalidJobId", ["Instance prod has no job j1", "on <instance>"]),
        ("iot.ota.JobHasFinished", ["over already", "/ota status j1"]),
        ("iot.ota.JobCanceled", ["over already"]),
        ("Iot.system.BillIsOverDue", ["arrears"]),
        ("iot.common.APINotSupportedInInstance", ["no OTA"]),
        ("MissingJobId", ["does not accept a value", "MissingJobId"]),
        ("InvalidParameter.Format", ["does not accept a value"]),
    ],
)
def test_a_known_code_says_what_happened_what_to_do_and_who_can(code: str, words: list[str]) -> None:
    text = told(CloudRefused(code, "in the cloud's words", request_id="AB-1"))
    assert [word for word in words if word not in text] == []
    assert "Who can: " in text
    assert (f"Alibaba Cloud says: {code}: in the cloud's words" in text) is (code != "SignatureDoesNotMatch")


def test_a_denied_action_is_named_alone_where_it_is_known() -> None:
    text = told(Refusal("Forbidden.RAM", "no", action="CancelOTATaskByJob"))
    assert '{"Effect":"Allow","Action":["iot:CancelOTATaskByJob"],"Resource":"*"}' in text
    assert "QueryOTAJob" not in text


@pytest.mark.parametrize(("ahead", "words"), [(3600.0, "60 minutes (ahead)"), (-1800.0, "30 minutes (behind)")])
def test_a_clock_that_is_off_is_measured_where_it_can_be(ahead: float, words: str) -> None:
    assert words in told(Refusal("InvalidTimeStamp.Expired", "…", clock_ahead_seconds=ahead))


@pytest.mark.parametrize(("seconds", "words"), [(None, "a few seconds"), (0.2, "1 seconds"), (7.0, "7 seconds")])
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
    notice = explain(error, Target("p\nq", "{secret}"), None)
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


def test_the_string_that_was_signed_is_not_shown_with_a_wrong_signature() -> None:
    error = CloudRefused("SignatureDoesNotMatch", "server string to sign is:POST&%2F&AccessKeyId%3Dtestid", status=400)
    assert "AccessKeyId" not in repr(explain(error, TARGET, INSTANCE))
