"""The IoT simulator over ASGI: who is let in, what is refused and how, what is answered, and what may go wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from defusedxml import ElementTree

from bot.alibaba.credentials import Credentials
from bot.alibaba.signing import Acs3Auth, RpcAuth, rpc_signature, rpc_string_to_sign, timestamp
from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import Habits
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.iot_answers import OFFERED

EPOCH = 1_800_000_000.0
SEED = load_seed()
INSTANCE = "iot-cn-0pp1n8t0001"
STATIC = "7glPHmaDYLAYMD1HHutT02"
DYNAMIC = "dYn4m1cRq2WsXe8RtGv501"
SCHEDULED = "Sch3dul3dQa1Ws4Ed8R301"
FINISHED = "F1n1shedZa3Sx5Dc7Fv201"
VERIFICATION = "V3r1fyOl8Pk5Ij2Uh9Nb01"
FIRMWARE = "Gw421aFq8LkT2nVb6Wc001"
STOP = {"JobId": STATIC, "CancelQueuedTask": "true"}


class Sandbox:
    """A simulator with a clock that stands, and one who calls it with a correct signature of either scheme."""

    def __init__(self, *, habits: Habits | None = None, jobs: Sequence[Mapping[str, Any]] = (), **options: Any) -> None:
        self.at = EPOCH
        seed = {**SEED, "jobs": [*SEED["jobs"], *jobs]}
        self.fleet = Fleet.from_seed(seed, now=lambda: self.at, habits=habits)
        self.slept: list[float] = []
        self.app = create_iot_app(self.fleet, now=lambda: self.at, sleep=self._sleep, **options)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://iot.test")
        self._nonces = iter(range(1_000_000))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def ask(
        self,
        action: str = "QueryOTAJob",
        params: Mapping[str, str] | None = None,
        *,
        scheme: str = "v3",
        method: str = "POST",
        key: str = "testid",
        secret: str = "testsecret",
        token: str | None = None,
        nonce: str | None = None,
        skew: float = 0.0,
        version: str = "2018-01-20",
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        params = {"IotInstanceId": INSTANCE, **({"JobId": STATIC} if params is None else params)}
        credentials = Credentials(key, secret, token)
        nonce = nonce or f"nonce-{next(self._nonces)}"
        date = datetime.fromtimestamp(self.at + skew, UTC)
        auth: httpx.Auth
        if scheme == "v3":
            own = {"x-acs-action": action, "x-acs-version": version}
            auth = Acs3Auth(credentials, nonce=nonce, date=date)
        else:
            own = {}
            params = {"Action": action, "Version": version, "Format": "JSON", **params}
            auth = RpcAuth(credentials, nonce=nonce, date=date)
        return await self.client.request(
            method, "/", params=params, headers={**own, **(headers or {})}, auth=auth, **content
        )

    def request_v3(self, params: Mapping[str, str] | None = None) -> httpx.Request:
        """A signed request that a test may spoil."""
        request = self.client.build_request(
            "POST",
            "/",
            params={"IotInstanceId": INSTANCE, "JobId": STATIC} if params is None else params,
            headers={"x-acs-action": "QueryOTAJob", "x-acs-version": "2018-01-20"},
        )
        date = datetime.fromtimestamp(self.at, UTC)
        auth = Acs3Auth(Credentials("testid", "testsecret", None), nonce=f"n{next(self._nonces)}", date=date)
        return next(auth.auth_flow(request))

    def signed_v1(self, method: str, **changed: str | None) -> dict[str, str]:
        """The parameters of a call in signature 1.0; None leaves one out, after signing with it."""
        params = {
            "Action": "QueryOTAJob",
            "Version": "2018-01-20",
            "Format": "JSON",
            "AccessKeyId": "testid",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "SignatureNonce": f"n{next(self._nonces)}",
            "Timestamp": timestamp(datetime.fromtimestamp(self.at, UTC)),
            "IotInstanceId": INSTANCE,
            "JobId": STATIC,
            **{name: value for name, value in changed.items() if value is not None},
        }
        params["Signature"] = rpc_signature("testsecret", rpc_string_to_sign(method, params))
        return {name: value for name, value in params.items() if name not in changed or changed[name] is not None}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    await sandbox.client.aclose()


both_schemes = pytest.mark.parametrize("scheme", ["v3", "v1"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["Code"]


# Who is let in


@both_schemes
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_signed_call_is_answered(sandbox: Sandbox, scheme: str, method: str) -> None:
    answer = await sandbox.ask(scheme=scheme, method=method)
    assert answer.status_code == 200
    assert answer.json()["Data"]["JobId"] == STATIC


@both_schemes
async def test_a_wrong_secret_is_refused(sandbox: Sandbox, scheme: str) -> None:
    answer = await sandbox.ask(scheme=scheme, secret="wrong")
    assert code(answer) == (400, "SignatureDoesNotMatch")
    assert "server string to sign is:" in answer.json()["Message"]


@both_schemes
async def test_an_unknown_key_is_refused(sandbox: Sandbox, scheme: str) -> None:
    assert code(await sandbox.ask(scheme=scheme, key="nobody")) == (404, "InvalidAccessKeyId.NotFound")


@both_schemes
@pytest.mark.parametrize(("skew", "is_accepted"), [(-901, False), (-899, True), (0, True), (899, True), (901, False)])
async def test_a_clock_may_be_wrong_by_fifteen_minutes(
    sandbox: Sandbox, scheme: str, skew: float, is_accepted: bool
) -> None:
    answer = await sandbox.ask(scheme=scheme, skew=skew)
    if is_accepted:
        assert answer.json()["Success"] is True
    else:
        assert code(answer) == (400, "InvalidTimeStamp.Expired")


@both_schemes
async def test_a_reused_nonce_is_refused(sandbox: Sandbox, scheme: str) -> None:
    params = {**STOP, "CancelNotifiedTask": "true"}
    first = await sandbox.ask("CancelOTATaskByJob", params, scheme=scheme, nonce="once")
    second = await sandbox.ask("CancelOTATaskByJob", params, scheme=scheme, nonce="once")
    assert first.json()["Success"] is True
    assert code(second) == (400, "SignatureNonceUsed")
    assert len(sandbox.fleet.history) == 1


async def test_a_nonce_is_remembered_while_its_date_could_be_good(sandbox: Sandbox) -> None:
    await sandbox.ask(nonce="once", skew=899)
    sandbox.at += 1798
    assert code(await sandbox.ask(nonce="once", skew=-899)) == (400, "SignatureNonceUsed")
    sandbox.at += 3
    assert (await sandbox.ask(nonce="once")).status_code == 200


async def test_a_nonce_belongs_to_its_key_and_is_not_used_up_by_a_wrong_signature() -> None:
    sandbox = Sandbox(keys={"one": "s1", "two": "s2"})
    await sandbox.ask(nonce="n", key="one", secret="wrong")
    assert (await sandbox.ask(nonce="n", key="one", secret="s1")).status_code == 200
    assert (await sandbox.ask(nonce="n", key="two", secret="s2")).status_code == 200


@both_schemes
async def test_a_temporary_key_needs_its_token_and_no_other_key_may_have_one(scheme: str) -> None:
    sandbox = Sandbox(keys={"STS.k": "s", "k": "s"}, tokens={"STS.k": "token"})
    own: Any = {"scheme": scheme, "secret": "s"}
    assert (await sandbox.ask(key="STS.k", token="token", **own)).status_code == 200
    assert code(await sandbox.ask(key="STS.k", **own)) == (400, "MissingSecurityToken")
    mismatch = (400, "InvalidSecurityToken.MismatchWithAccessKey")
    assert code(await sandbox.ask(key="STS.k", token="other", **own)) == mismatch
    assert code(await sandbox.ask(key="k", token="token", **own)) == mismatch


# Malformed calls


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("authorization", "ACS3-HMAC-SHA256", (400, "IncompleteSignature")),
        ("authorization", "ACS3-HMAC-SHA256 Credential=testid,Signature=ab", (400, "IncompleteSignature")),
        ("authorization", "ACS3-HMAC-SHA256 Credential=x,SignedHeaders=host,Signature=a", (400, "IncompleteSignature")),
        ("x-acs-date", "yesterday", (400, "InvalidTimeStamp.Format")),
        ("x-acs-date", "2027-01-15 08:00:00", (400, "InvalidTimeStamp.Format")),
        ("x-acs-date", "2027-01-15T07:59:59Z", (400, "SignatureDoesNotMatch")),
        ("x-acs-content-sha256", "0" * 64, (400, "InvalidParameter")),
        ("x-acs-action", "Reboot", (404, "InvalidApi.NotFound")),
        ("x-acs-version", "2020-01-01", (404, "InvalidApi.NotFound")),
        ("host", "evil.test", (400, "SignatureDoesNotMatch")),
        ("x-acs-unsigned", "1", (400, "IncompleteSignature")),
    ],
)
async def test_a_changed_header_is_noticed(
    sandbox: Sandbox, header: str, value: str, expected: tuple[int, str]
) -> None:
    request = sandbox.request_v3()
    request.headers[header] = value
    assert code(await sandbox.client.send(request)) == expected


@pytest.mark.parametrize("header", ["x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce"])
async def test_a_missing_header_is_named(sandbox: Sandbox, header: str) -> None:
    request = sandbox.request_v3()
    del request.headers[header]
    status, name = code(await sandbox.client.send(request))
    assert status == 400
    assert name == {"x-acs-action": "MissingAction", "x-acs-version": "MissingVersion"}.get(header, f"Missing{header}")


async def test_a_changed_parameter_is_noticed(sandbox: Sandbox) -> None:
    request = sandbox.request_v3()
    request.url = request.url.copy_merge_params({"JobId": DYNAMIC})
    assert code(await sandbox.client.send(request)) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"Signature": None}, (400, "MissingSignature")),
        ({"AccessKeyId": None}, (400, "MissingAccessKeyId")),
        ({"SignatureNonce": None}, (400, "MissingSignatureNonce")),
        ({"Timestamp": None}, (400, "MissingTimestamp")),
        ({"Action": None}, (400, "MissingAction")),
        ({"Version": None}, (400, "MissingVersion")),
        ({"SignatureMethod": "HMAC-MD5"}, (400, "InvalidSignatureMethod")),
        ({"SignatureVersion": "9"}, (400, "InvalidSignatureMethod")),
        ({"Timestamp": "1800000000"}, (400, "InvalidTimeStamp.Format")),
        ({"Timestamp": "2027-13-45T00:00:00Z"}, (400, "InvalidTimeStamp.Format")),
        ({"Action": "ListOTATaskByDevice"}, (404, "InvalidApi.NotFound")),
        ({"JobId": None}, (400, "SignatureDoesNotMatch")),
    ],
)
async def test_each_common_parameter_is_checked(
    sandbox: Sandbox, changed: dict[str, str | None], expected: tuple[int, str]
) -> None:
    answer = await sandbox.client.get("/", params=sandbox.signed_v1("GET", **changed))
    assert code(answer) == expected


async def test_an_unknown_format_is_refused_in_xml(sandbox: Sandbox) -> None:
    answer = await sandbox.client.get("/", params=sandbox.signed_v1("GET", Format="YAML"))
    assert answer.status_code == 400
    assert ElementTree.fromstring(answer.text).findtext("Code") == "InvalidParameter.Format"


async def test_parameters_in_a_form_are_signed_with_the_query(sandbox: Sandbox) -> None:
    answer = await sandbox.client.post("/", data=sandbox.signed_v1("POST"))
    assert answer.json()["Success"] is True
    spoilt = {**sandbox.signed_v1("POST"), "JobId": DYNAMIC}
    assert code(await sandbox.client.post("/", data=spoilt)) == (400, "SignatureDoesNotMatch")


async def test_a_form_under_v3_counts(sandbox: Sandbox) -> None:
    answer = await sandbox.ask(params={}, data={"JobId": STATIC})
    assert answer.json()["Data"]["JobId"] == STATIC


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(sandbox: Sandbox, method: str) -> None:
    assert code(await sandbox.ask(method=method)) == (400, "UnsupportedHTTPMethod")


async def test_other_paths_are_not_an_api(sandbox: Sandbox) -> None:
    request = sandbox.request_v3()
    request.url = request.url.copy_with(path="/ota/jobs")
    assert code(await sandbox.client.send(request)) == (404, "InvalidApi.NotFound")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"JobId=%FF%FE", b"%", b"&&&===", b"{", b"a=" + b"b" * 2_000_000, b"a=1&" * 5000, "é=ü".encode()],
    ids=["binary", "not utf-8", "percent", "signs", "json", "too long", "too many", "not encoded"],
)
@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "application/json", "text/\xff", ""])
async def test_no_body_gives_a_500(sandbox: Sandbox, content: bytes, type_: str) -> None:
    headers = {"content-type": type_.encode("latin-1")} if type_ else {}
    for path in ("/", "/?Action=QueryOTAJob&Version=2018-01-20&Format=JSON"):
        answer = await sandbox.client.post(path, content=content, headers=headers)
        assert answer.status_code in (400, 404)
    signed = await sandbox.ask("QueryOTAJob", {"JobId": STATIC}, content=content)
    # Of a body that is too long for a call the end is dropped, and then its hash is wrong.
    assert signed.status_code == (400 if len(content) > 1_000_000 else 200)


@pytest.mark.parametrize("query", ["%FF", "Action=%C3%28", "a=1&a=2", "Action=A&Action=B", "=&=", "%00=%00", ";;;"])
async def test_no_query_gives_a_500(sandbox: Sandbox, query: str) -> None:
    request = sandbox.request_v3()
    for headers in ({}, dict(request.headers)):
        url = httpx.URL("http://iot.test/").copy_with(query=query.encode())
        answer = await sandbox.client.send(httpx.Request("GET", url, headers=headers))
        assert answer.status_code in (400, 404)


async def test_raw_bytes_off_the_wire_never_give_a_500(sandbox: Sandbox) -> None:
    # Headers and queries that an HTTP client would not let through.
    for scope in (
        {"query_string": b"JobId=\xff\xfe&Action=\x00", "headers": [(b"authorization", b"ACS3-HMAC-SHA256 \xff\x00")]},
        {"query_string": b"", "headers": [(b"x-acs-action", b"\xff"), (b"host", b"\xe9<&>")], "raw_path": b"/\xff"},
        {"query_string": b"Format=\xe9&Action=" + b"<" * 100, "headers": [], "raw_path": b"/"},
    ):
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        base = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "root_path": "", "scheme": "http"}
        await sandbox.app({**base, **scope}, receive, send)
        assert sent[0]["status"] in (400, 404)


async def test_an_error_of_the_gateway_has_its_own_envelope(sandbox: Sandbox) -> None:
    answer = await sandbox.ask(secret="wrong")
    assert set(answer.json()) == {"RequestId", "HostId", "Code", "Message", "Recommend"}
    assert answer.json()["HostId"] == "iot.test"


# Parameters of the operations


@pytest.mark.parametrize(
    ("action", "given", "missing"),
    [
        *((action, {}, f"Missing{offered.required[0]}") for action, offered in OFFERED.items() if offered.required),
        *(
            (action, dict.fromkeys(offered.required, "x"), f"Missing{name}")
            for action, offered in OFFERED.items()
            for name in offered.lists
        ),
        ("QueryOTAJob", {"JobId": ""}, "MissingJobId"),
        ("ListOTATaskByJob", {}, "MissingJobId"),
        ("ListOTAJobByFirmware", {"CurrentPage": "1", "PageSize": "10"}, "MissingFirmwareId"),
        ("ListOTAJobByFirmware", {"FirmwareId": FIRMWARE, "PageSize": "10"}, "MissingCurrentPage"),
        ("ListOTAFirmware", {"CurrentPage": "1"}, "MissingPageSize"),
    ],
)
async def test_a_missing_parameter_is_named(sandbox: Sandbox, action: str, given: dict[str, str], missing: str) -> None:
    assert code(await sandbox.ask(action, given)) == (400, missing)


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "yes"}),
        ("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "1"}),
        ("ListOTATaskByJob", {"JobId": STATIC, "PageSize": "ten"}),
        ("ListOTATaskByJob", {"JobId": STATIC, "CurrentPage": "1.5"}),
        ("ListOTATaskByJob", {"JobId": STATIC, "CurrentPage": "9" * 5000}),
    ],
)
async def test_a_malformed_parameter_is_refused(sandbox: Sandbox, action: str, given: dict[str, str]) -> None:
    assert code(await sandbox.ask(action, given)) == (400, "InvalidParameter")
    assert sandbox.fleet.history == []


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
async def test_flags_are_read_in_any_case(sandbox: Sandbox, word: str) -> None:
    flags = {"CancelQueuedTask": word, "CancelUnconfirmedTask": word}
    assert (await sandbox.ask("CancelOTATaskByJob", {"JobId": STATIC, **flags})).json()["Success"] is True
    assert sandbox.fleet.history[0].tasks > 200


@pytest.mark.parametrize(
    ("action", "given", "expected"),
    [
        ("QueryOTAJob", {"JobId": "nosuch"}, "iot.ota.InvalidJobId"),
        ("QueryOTAJob", {"JobId": VERIFICATION}, "iot.ota.InvalidJobId"),
        ("QueryOTAJob", {"JobId": "<&\x00\u202e>"}, "iot.ota.InvalidJobId"),
        ("QueryOTAJob", {"JobId": STATIC, "IotInstanceId": ""}, "iot.Sre.IotInstanceNotFound"),
        ("QueryOTAJob", {"JobId": STATIC, "IotInstanceId": "iot-other"}, "iot.Sre.IotInstanceNotFound"),
        ("QueryOTAJob", {"JobId": STATIC, "RegionId": "us-west-1"}, "iot.Sre.IotInstanceNotFound"),
        ("CancelOTATaskByJob", {"JobId": STATIC}, "iot.system.IllegalRequest"),
        ("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "false"}, "iot.system.IllegalRequest"),
        ("CancelOTATaskByJob", {"JobId": FINISHED, "CancelQueuedTask": "true"}, "iot.ota.JobHasFinished"),
        ("CancelOTAStrategyByJob", {"JobId": STATIC}, "iot.ota.noDynamicJob"),
        ("ListOTATaskByJob", {"JobId": STATIC, "TaskStatus": "DONE"}, "iot.firmware.InvalidTaskStatus"),
        ("ListOTATaskByJob", {"JobId": STATIC, "PageSize": "101"}, "iot.common.InvalidPageParams"),
        ("ListOTATaskByJob", {"JobId": STATIC, "CurrentPage": "0"}, "iot.common.InvalidPageParams"),
        ("ListOTATaskByJob", {"JobId": STATIC, "PageSize": "-1"}, "iot.common.InvalidPageParams"),
        (
            "ListOTATaskByJob",
            {"JobId": STATIC, "PageSize": "100", "CurrentPage": "1001"},
            "iot.common.InvalidPageParams",
        ),
        (
            "ListOTATaskByJob",
            {"JobId": STATIC, **{f"DeviceNames.{n}": f"d{n}" for n in range(1, 52)}},
            "iot.device.TooManyDeviceNamesPerRequest",
        ),
        ("ListOTAJobByFirmware", {"FirmwareId": "no", "CurrentPage": "1", "PageSize": "1"}, "iot.ota.FirmwareNotFound"),
        (
            "ListOTAJobByFirmware",
            {"FirmwareId": FIRMWARE, "CurrentPage": "1", "PageSize": "201"},
            "iot.common.InvalidPageParams",
        ),
        ("ListOTAFirmware", {"CurrentPage": "1", "PageSize": "101"}, "iot.common.InvalidPageParams"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_the_service_refuses_in_its_own_words(
    action: str, given: dict[str, str], expected: str, status: int
) -> None:
    sandbox = Sandbox(business_error_status=status)
    answer = await sandbox.ask(action, given)
    assert code(answer) == (status, expected)
    assert set(answer.json()) == {"RequestId", "Success", "Code", "ErrorMessage"}
    assert answer.json()["Success"] is False
    assert sandbox.fleet.history == []


# What is answered


async def test_a_cancel_changes_the_fleet_and_is_remembered(sandbox: Sandbox) -> None:
    answer = await sandbox.ask("CancelOTATaskByJob", {**STOP, "CancelUnconfirmedTask": "false"})
    assert answer.json() == {"RequestId": answer.json()["RequestId"], "Success": True}
    (effect,) = sandbox.fleet.history
    assert effect.request_id == answer.json()["RequestId"]
    assert effect.params == {**STOP, "CancelUnconfirmedTask": "false", "IotInstanceId": INSTANCE}
    counted = await sandbox.ask("ListOTATaskByJob", {"JobId": STATIC, "TaskStatus": "QUEUED", "PageSize": "1"})
    assert counted.json()["Total"] == 0


async def test_a_strategy_is_cancelled(sandbox: Sandbox) -> None:
    await sandbox.ask("CancelOTAStrategyByJob", {"JobId": DYNAMIC})
    assert (await sandbox.ask(params={"JobId": DYNAMIC})).json()["Data"]["JobStatus"] == "CANCELED"


@pytest.mark.parametrize(
    ("job", "facts"),
    [
        (STATIC, {"JobStatus": "IN_PROGRESS", "SelectionType": "STATIC", "JobType": "UPGRADE_FIRMWARE"}),
        (DYNAMIC, {"JobStatus": "IN_PROGRESS", "SelectionType": "DYNAMIC", "DynamicMode": 1}),
        (SCHEDULED, {"JobStatus": "PLANNED", "SelectionType": "STATIC", "UtcScheduleTime": "2027-01-15T08:30:00.000Z"}),
        (FINISHED, {"JobStatus": "COMPLETED"}),
        ("Canc3l3dTg6Yh9Uj2Ik401", {"JobStatus": "CANCELED", "TargetSelection": "SPECIFIC"}),
        ("C0nf1rmLp9OkMjUh7Yb601", {"NeedConfirm": True, "GrayPercent": "25.00"}),
    ],
)
async def test_a_job_is_described(sandbox: Sandbox, job: str, facts: dict[str, Any]) -> None:
    described = (await sandbox.ask(params={"JobId": job})).json()["Data"]
    assert facts.items() <= described.items()
    assert ("UtcEndTime" in described) is (facts.get("JobStatus") in ("COMPLETED", "CANCELED"))
    assert ("UtcScheduleTime" in described) is (job == SCHEDULED)


async def test_a_verification_job_has_its_type(sandbox: Sandbox) -> None:
    given = {"JobId": VERIFICATION, "IotInstanceId": "iot-cn-st4g1ng0001"}
    assert (await sandbox.ask(params=given)).json()["Data"]["JobType"] == "VERIFY_FIRMWARE"


async def test_pages_hold_every_task_once(sandbox: Sandbox) -> None:
    names: list[str] = []
    for page in range(1, 6):
        given = {"JobId": STATIC, "PageSize": "90", "CurrentPage": str(page)}
        body = (await sandbox.ask("ListOTATaskByJob", given)).json()
        assert (body["Total"], body["PageCount"], body["CurrentPage"]) == (400, 5, page)
        names += [row["DeviceName"] for row in body["Data"]["SimpleOTATaskInfo"]]
    assert len(set(names)) == len(names) == 400


async def test_a_task_has_all_its_fields(sandbox: Sandbox) -> None:
    given = {"JobId": STATIC, "TaskStatus": "FAILED"}
    row = (await sandbox.ask("ListOTATaskByJob", given)).json()["Data"]["SimpleOTATaskInfo"][0]
    assert set(row) == {
        *("TaskId", "JobId", "FirmwareId", "ProductKey", "ProductName", "DeviceName", "IotId", "TaskStatus"),
        *("Progress", "TaskDesc", "SrcVersion", "DestVersion", "Timeout", "UtcCreate", "UtcModified"),
    }
    assert row["TaskDesc"]
    assert (row["ProductName"], row["SrcVersion"], row["DestVersion"]) == ("Gateway G1", "4.1.9", "4.2.1")


async def test_named_devices_override_pages(sandbox: Sandbox) -> None:
    given = {"JobId": STATIC, "PageSize": "1", "CurrentPage": "9", "DeviceNames.2": "gw-sh-00002"}
    body = (await sandbox.ask("ListOTATaskByJob", {**given, "DeviceNames.1": "gw-sh-00400"})).json()
    assert [row["DeviceName"] for row in body["Data"]["SimpleOTATaskInfo"]] == ["gw-sh-00002", "gw-sh-00400"]
    assert body["Total"] == 2


@pytest.mark.parametrize(("style", "expected"), [("list", {"SimpleOTATaskInfo": []}), ("object", {}), ("absent", None)])
async def test_an_empty_list_is_written_in_any_of_three_ways(style: str, expected: Any) -> None:
    sandbox = Sandbox(empty_rows=style)
    body = (await sandbox.ask("ListOTATaskByJob", {"JobId": STATIC, "TaskStatus": "CONFIRM"})).json()
    assert (body["Total"], body["PageCount"], body.get("Data")) == (0, 0, expected)


async def test_jobs_of_a_package_come_newest_first(sandbox: Sandbox) -> None:
    given = {"FirmwareId": FIRMWARE, "CurrentPage": "1", "PageSize": "200"}
    rows = (await sandbox.ask("ListOTAJobByFirmware", given)).json()["Data"]["SimpleOTAJobInfo"]
    assert [row["JobId"] for row in rows] == [STATIC, DYNAMIC, "Canc3l3dTg6Yh9Uj2Ik401"]


@pytest.mark.parametrize(
    ("given", "versions"),
    [
        ({}, ["4.2.1", "2.0.7", "4.1.9"]),
        ({"ProductKey": "a1Gateway01"}, ["4.2.1", "4.1.9"]),
        ({"DestVersion": "4.1.9"}, ["4.1.9"]),
        ({"ProductKey": "a1Nothing00"}, []),
        ({"IotInstanceId": "iot-cn-st4g1ng0001"}, ["4.2.1"]),
    ],
)
async def test_packages_are_listed_per_instance(sandbox: Sandbox, given: dict[str, str], versions: list[str]) -> None:
    body = (await sandbox.ask("ListOTAFirmware", {"CurrentPage": "1", "PageSize": "100", **given})).json()
    rows = body["FirmwareInfo"]["SimpleFirmwareInfo"]
    assert [row["DestVersion"] for row in rows] == versions
    assert all(isinstance(row["FirmwareSize"], int) and row["SignMethod"] == "MD5" for row in rows)


# JSON and XML


async def test_signature_1_without_a_format_is_answered_in_xml(sandbox: Sandbox) -> None:
    params = sandbox.signed_v1("GET", JobId="C0nf1rmLp9OkMjUh7Yb601", Format="XML")
    answer = await sandbox.client.get("/", params=params)
    assert answer.headers["content-type"] == "text/xml;charset=utf-8"
    root = ElementTree.fromstring(answer.text)
    assert root.tag == "QueryOTAJobResponse"
    assert root.findtext("Success") == "true"
    assert root.findtext("Data/SrcVersions/SrcVersion") == "2.0.6"


async def test_v3_is_answered_in_xml_if_it_accepts_nothing_else(sandbox: Sandbox) -> None:
    given = {"JobId": STATIC, "PageSize": "2", "TaskStatus": "QUEUED"}
    answer = await sandbox.ask("ListOTATaskByJob", given, headers={"accept": "application/xml"})
    rows = ElementTree.fromstring(answer.text).findall("Data/SimpleOTATaskInfo")
    assert [row.findtext("TaskStatus") for row in rows] == ["QUEUED", "QUEUED"]


async def test_errors_are_written_in_xml_too(sandbox: Sandbox) -> None:
    xml = {"accept": "text/xml"}
    gateway = ElementTree.fromstring((await sandbox.ask(secret="wrong", headers=xml)).text)
    assert (gateway.tag, gateway.findtext("Code")) == ("Error", "SignatureDoesNotMatch")
    own = ElementTree.fromstring((await sandbox.ask(params={"JobId": "no"}, headers=xml)).text)
    assert (own.tag, own.findtext("Success")) == ("QueryOTAJobResponse", "false")
    assert own.findtext("Code") == "iot.ota.InvalidJobId"


async def test_hostile_text_is_still_xml(sandbox: Sandbox) -> None:
    answer = await sandbox.client.get("/", headers={"host": "<!--&\x01]]>"})
    assert ElementTree.fromstring(answer.text).findtext("HostId") == "<!--&?]]>"


# The limit


@pytest.mark.parametrize(
    ("action", "limit"), [(action, offered.calls_per_second) for action, offered in OFFERED.items()]
)
async def test_each_operation_has_its_calls_per_second(sandbox: Sandbox, action: str, limit: int) -> None:
    for n in range(limit):
        sandbox.at = EPOCH + n * 0.01
        assert "Throttling.User" not in (await sandbox.ask(action)).text
    sandbox.at = EPOCH + 0.99
    assert code(await sandbox.ask(action)) == (400, "Throttling.User")
    # The second slides: only the first call has left it.
    sandbox.at = EPOCH + 1.0
    assert "Throttling.User" not in (await sandbox.ask(action)).text
    assert code(await sandbox.ask(action)) == (400, "Throttling.User")


async def test_the_limit_is_the_accounts_and_each_operations_own() -> None:
    sandbox = Sandbox(keys={"one": "s", "two": "s"})
    for key in ("one", "two", "one", "two", "one"):
        assert (await sandbox.ask("CancelOTATaskByJob", STOP, key=key, secret="s")).status_code == 200
    assert code(await sandbox.ask("CancelOTATaskByJob", STOP, key="two", secret="s"))[1] == "Throttling.User"
    assert (await sandbox.ask("QueryOTAJob", key="two", secret="s")).status_code == 200
    assert len(sandbox.fleet.history) == 5


async def test_a_refused_signature_does_not_use_up_the_limit(sandbox: Sandbox) -> None:
    for _ in range(20):
        await sandbox.ask("CancelOTATaskByJob", STOP, secret="wrong")
    assert (await sandbox.ask("CancelOTATaskByJob", STOP)).status_code == 200


async def test_the_limit_can_be_turned_off() -> None:
    sandbox = Sandbox(is_throttling=False)
    assert {(await sandbox.ask()).status_code for _ in range(30)} == {200}


# What can be looked at


async def test_the_fleet_and_its_effects_can_be_looked_at(sandbox: Sandbox) -> None:
    await sandbox.ask("CancelOTATaskByJob", STOP)
    jobs = (await sandbox.client.get("/_sandbox/fleet")).json()["jobs"]
    incident = next(job for job in jobs if job["job_id"] == STATIC)
    assert (incident["instance"], incident["firmware"], incident["state"]) == (
        "prod-shanghai",
        "gateway-4.2.1",
        "IN_PROGRESS",
    )
    assert sum(incident["counts"].values()) == 400
    (effect,) = (await sandbox.client.get("/_sandbox/effects")).json()["effects"]
    assert (effect["action"], effect["params"]["JobId"]) == ("CancelOTATaskByJob", STATIC)


async def test_request_ids_are_upper_case_and_differ(sandbox: Sandbox) -> None:
    ids = [(await sandbox.ask()).json()["RequestId"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(value) == 36 and value == value.upper() for value in ids)


async def test_encoded_and_plus_spaces_are_the_same_value(sandbox: Sandbox) -> None:
    # Signed as %20; one of the official SDKs writes a plus.
    params = sandbox.signed_v1("GET", JobId="a b*~é")
    plus = "&".join(f"{name}={quote(value, safe='').replace('%20', '+')}" for name, value in params.items())
    answer = await sandbox.client.send(
        httpx.Request("GET", httpx.URL("http://iot.test/").copy_with(query=plus.encode()))
    )
    assert answer.json()["Code"] == "iot.ota.InvalidJobId"


async def test_an_unsigned_content_type_is_let_in_only_without_a_body(sandbox: Sandbox) -> None:
    request = sandbox.request_v3()
    request.headers["content-type"] = "application/octet-stream"
    assert (await sandbox.client.send(request)).status_code == 200
    spoilt = sandbox.request_v3()
    headers = {**spoilt.headers, "content-type": "text/plain", "x-acs-content-sha256": hashlib.sha256(b"x").hexdigest()}
    headers.pop("content-length", None)
    answer = await sandbox.client.request("POST", spoilt.url, headers=headers, content=b"x")
    assert code(answer) == (400, "IncompleteSignature")
