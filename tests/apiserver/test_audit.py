"""The audit log keeps what the policy says, never a credential, and never in the way."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetplane.apiserver.audit import MAX_BODY_BYTES, Audit
from fleetplane.apiserver.audit_log import AuditLog
from fleetplane.apiserver.audit_policy import Level, Policy, metadata_of_changes
from fleetplane.apiserver.authorization.attributes import Attributes, Decision, Verdict
from fleetplane.apiserver.http import Request
from fleetplane.model.user import UserInfo
from fleetplane.testing.plane import running_server

Obj = dict[str, Any]
ANN = UserInfo("ann", groups=("dev",))
ADMIN = UserInfo("admin", groups=("system:masters", "system:authenticated"))


class Clock:
    def __init__(self) -> None:
        self.random = random.Random(1)
        self.ids: Iterator[int] = iter(range(1000))
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def uuid(self) -> str:
        return f"id-{next(self.ids)}"


def policy(*rules: Obj, **more: Any) -> Policy:
    return Policy.from_object({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


def asking(verb: str = "create", resource: str = "pods", user: UserInfo = ANN, **more: Any) -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(user, verb, more.pop("group", ""), "v1", plural, subresource, more.pop("namespace", "a"), **more)


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        ({"users": ["ann"]}, asking(), asking(user=UserInfo("bob"))),
        ({"userGroups": ["dev", "ops"]}, asking(), asking(user=UserInfo("bob"))),
        ({"verbs": ["create"]}, asking(), asking("get")),
        ({"namespaces": ["a"]}, asking(), asking(namespace="b")),
        ({"namespaces": [""]}, asking(resource="nodes", namespace=""), asking()),
        ({"resources": [{"group": ""}]}, asking(), asking(group="apps")),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, asking(), asking(resource="pods/log")),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, asking(resource="pods/log"), asking(resource="nodes/log")),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, asking(resource="pods/log"), asking(resource="pods/exec")),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["x"]}]}, asking(name="x"), asking(name="y")),
        ({"nonResourceURLs": ["/healthz*"]}, Attributes(ANN, "get", path="/healthz/x"), Attributes(ANN, "get", path="/x")),
        ({"nonResourceURLs": ["*"]}, Attributes(ANN, "get", path="/x"), asking()),
    ],
)  # fmt: skip
def test_a_rule_matches_what_it_names(rule: Obj, matching: Attributes, other: Attributes) -> None:
    made = policy({"level": "Request", **rule})

    assert made.keep(matching).level is Level.REQUEST
    assert made.keep(other).level is Level.NONE


def test_the_first_matching_rule_wins() -> None:
    made = policy({"level": "None", "verbs": ["get"]}, {"level": "RequestResponse"})

    assert made.keep(asking("get")).level is Level.NONE
    assert made.keep(asking("create")).level is Level.REQUEST_RESPONSE


@pytest.mark.parametrize(
    "attributes",
    [
        asking(resource="secrets"),
        asking(resource="serviceaccounts/token"),
        asking(resource="tokenreviews", group="authentication.k8s.io", namespace=""),
    ],
)
def test_credentials_are_never_kept_beyond_metadata(attributes: Attributes) -> None:
    assert policy({"level": "RequestResponse"}).keep(attributes).level is Level.METADATA


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"rules": [{"level": "Everything"}]}, r"rules\[0\]\.level"),
        ({"rules": []}, "no rules"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/"], "namespaces": ["a"]}]}, "both"),
        ({"rules": [{"level": "None", "verbs": "get"}]}, r"rules\[0\]\.verbs"),
        ({"rules": [{"level": "None", "resources": [{"resourceNames": ["x"]}]}]}, "resources is required"),
        ({"rules": [{"level": "None"}], "omitStages": ["Later"]}, "omitStages"),
        ({"rules": [{"level": "None"}], "kind": "Other"}, "kind Policy"),
    ],
)
def test_a_bad_policy_is_refused_by_field(data: Obj, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Policy.from_object({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **data})


def test_without_a_policy_changes_are_kept() -> None:
    made = metadata_of_changes()

    assert made.keep(asking("delete")).level is Level.METADATA
    assert made.keep(asking("list")).level is Level.NONE
    assert made.keep(asking("update", "leases", group="coordination.k8s.io")).level is Level.NONE


# --- events -----------------------------------------------------------------------------------------------------------


def events(
    made: Policy, attributes: Attributes, request: Request, *, status: int = 201, body: bytes = b"", **more: Any
) -> list[Obj]:
    lines: list[bytes] = []
    trail = Audit(made, lines.append, Clock()).received(request, attributes, **more)
    assert trail is not None
    trail.decided(Decision(Verdict.ALLOW, "because"))
    trail.completed(status, body)
    return [json.loads(line) for line in lines]


POST = Request(
    "POST", "/api/v1/namespaces/a/pods", query={"dryRun": "All"}, body=b'{"metadata":{"name":"x","managedFields":[1]}}',
    headers={"user-agent": "kubectl", "x-forwarded-for": "192.0.2.1, 192.0.2.2"}, remote="127.0.0.1",
)  # fmt: skip


def test_metadata_says_who_did_what_and_how_it_ended() -> None:
    first, last = events(policy({"level": "Metadata"}), asking(name="x"), POST)

    assert (first["stage"], last["stage"]) == ("RequestReceived", "ResponseComplete")
    assert first["auditID"] == last["auditID"] == "id-0"
    assert last["user"] == {"username": "ann", "groups": ["dev"]}
    assert last["objectRef"] == {"resource": "pods", "namespace": "a", "name": "x", "apiVersion": "v1"}
    assert last["requestURI"] == "/api/v1/namespaces/a/pods?dryRun=All"
    assert last["sourceIPs"] == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]
    assert last["responseStatus"] == {"metadata": {}, "code": 201}
    assert last["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert last["requestReceivedTimestamp"] == first["stageTimestamp"] < last["stageTimestamp"]
    assert "requestObject" not in last
    assert "responseStatus" not in first


def test_bodies_come_with_their_levels_and_without_managed_fields() -> None:
    answer = b'{"items":[{"metadata":{"name":"x","managedFields":[]}}]}'

    (request_level,) = events(policy({"level": "Request"}, omitStages=["RequestReceived"]), asking(), POST, body=answer)
    (full,) = events(policy({"level": "RequestResponse"}, omitStages=["RequestReceived"]), asking(), POST, body=answer)

    assert request_level["requestObject"] == {"metadata": {"name": "x"}}
    assert "responseObject" not in request_level
    assert full["responseObject"] == {"items": [{"metadata": {"name": "x"}}]}


def test_managed_fields_stay_where_the_policy_wants_them() -> None:
    (full,) = events(
        policy({"level": "Request", "omitManagedFields": False}, omitStages=["RequestReceived"]), asking(), POST
    )

    assert full["requestObject"]["metadata"]["managedFields"] == [1]


def test_no_secret_ever_reaches_the_log() -> None:
    secret = Request(
        "POST",
        "/api/v1/namespaces/a/secrets",
        body=b'{"data":{"password":"aHVudGVyMg=="}}',
        headers={"authorization": "Bearer hunter2"},
    )

    found = events(policy({"level": "RequestResponse"}), asking(resource="secrets"), secret, body=secret.body)

    assert "hunter2" not in json.dumps(found)
    assert "aHVudGVyMg" not in json.dumps(found)


def test_large_bodies_are_left_out_and_said_to_be() -> None:
    (event,) = events(
        policy({"level": "RequestResponse"}, omitStages=["RequestReceived"]),
        asking(),
        POST,
        body=b'"' + b"x" * MAX_BODY_BYTES + b'"',
    )

    assert "responseObject" not in event
    assert event["annotations"]["audit.k8s.io/truncated"] == "true"


def test_a_refusal_is_kept_with_its_reason() -> None:
    body = b'{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403,"details":{}}'

    last = events(policy({"level": "Metadata"}), asking(), POST, status=403, body=body)[-1]

    assert last["responseStatus"] == {
        "metadata": {},
        "code": 403,
        "status": "Failure",
        "message": "no",
        "reason": "Forbidden",
    }


def test_impersonation_keeps_both_names() -> None:
    last = events(policy({"level": "Metadata"}), asking(), POST, impersonated_by=UserInfo("root"))[-1]

    assert last["user"] == {"username": "root"}
    assert last["impersonatedUser"]["username"] == "ann"


def test_what_no_rule_keeps_costs_nothing() -> None:
    assert (
        Audit(policy({"level": "None"}), lambda _line: pytest.fail("written"), Clock()).received(POST, asking()) is None
    )


def test_rubbish_bodies_and_long_headers_are_harmless() -> None:
    odd = Request(
        "POST", "/a b\x00" + "c" * 9000, body=b"\xff{", headers={"audit-id": "i" * 500, "user-agent": "u" * 5000}
    )

    event = events(policy({"level": "RequestResponse"}), asking(), odd, body=b"\xfe")[-1]

    assert len(event["auditID"]) == 64
    assert len(event["requestURI"]) < 5000
    assert "requestObject" not in event


# --- the file ---------------------------------------------------------------------------------------------------------


def sizes_and_modes(directory: Path) -> list[tuple[int, int]]:
    return [(f.stat().st_size, stat.S_IMODE(f.stat().st_mode)) for f in directory.iterdir()]


@asynccontextmanager
async def running(log: AuditLog) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(log.run())
        await asyncio.sleep(0)
        yield
        task.cancel()


async def test_lines_are_written_in_order_to_a_private_file(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", Clock())

    async with running(log):
        for number in range(100):
            log.write(f"{number}".encode())

    assert (tmp_path / "audit.log").read_text().split() == [str(number) for number in range(100)]
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600


async def test_files_rotate_by_size_and_few_are_kept(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", Clock(), max_bytes=100, backups=2)

    async with running(log):
        for number in range(12):
            log.write(b"%02d" % number + b"x" * 48)
            await asyncio.sleep(0.01)

    found = sizes_and_modes(tmp_path)
    assert len(found) == 3
    assert all(size <= 102 and mode == 0o600 for size, mode in found)
    assert (tmp_path / "audit.log").read_text().startswith("1")


async def test_a_full_queue_loses_lines_and_counts_them(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", Clock(), queue_bytes=1000)
    for _ in range(100):
        log.write(b"x" * 99)

    async with running(log):
        pass

    assert log.dropped == 90
    assert len((tmp_path / "audit.log").read_text().split()) == 10


async def test_a_disk_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "missing" / "audit.log", Clock())

    async with running(log):
        log.write(b"x")

    assert log.dropped == 1


async def test_an_error_nobody_expected_is_kept_as_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []

    async def fail(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    async with running_server() as api:
        parts = replace(api.server._parts, audit=Audit(policy({"level": "Metadata"}), lines.append, Clock()))
        monkeypatch.setattr(api.server, "_parts", parts)
        monkeypatch.setattr(api.server, "_answer", fail)
        answer = await api.server.handle(replace(POST, in_process_user=ADMIN))

    last = json.loads(lines[-1])
    assert (answer.status, answer.headers["Audit-Id"]) == (500, last["auditID"])
    assert (last["stage"], last["responseStatus"]["code"]) == ("Panic", 500)
    assert b"nobody expected this" not in answer.body
