"""Who vouches for a package, and that nothing else comes into a class that wants to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.operators.vehicles.stage import DEVELOPER, Stage, VehPod, pod_spec, staged, veh_pod
from tests.operators.vehicles.test_package import application, image_archive, read, write

from fleetplane.interfaces.cli.main import run
from fleetplane.model import yaml
from fleetplane.model.builtin.types import PODS, ROLE_BINDINGS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.operators.vehicles.application import GOOD
from fleetplane.operators.vehicles.kinds import AppType, LifecycleManagingRule, VehApplication
from fleetplane.operators.vehicles.package import ARTIFACT, SIGNATURE, PackageError, pack, verify, with_digests
from fleetplane.operators.vehicles.package_signing import (
    APPLICATION,
    PACKAGE,
    SigningError,
    is_signed,
    payload,
    private_key,
    public_key,
    sign,
)

PEM = serialization.Encoding.PEM
OURS, STRANGE, CURVE = (
    Ed25519PrivateKey.generate(),
    Ed25519PrivateKey.generate(),
    ec.generate_private_key(ec.SECP256R1()),
)


def public(key: Any) -> str:
    return str(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode())


def private(key: Any, password: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how))


# -- signatures


@pytest.mark.parametrize("key", [OURS, CURVE])
def test_a_signature_is_of_one_digest_as_one_thing_under_one_name_by_one_key(key: Any) -> None:
    made = sign(private_key(private(key)), payload(APPLICATION, "cockpit", "sha256:1"))
    trusted = [public(STRANGE), public(key)]
    assert is_signed(payload(APPLICATION, "cockpit", "sha256:1"), [made], trusted)
    for other in (
        payload(APPLICATION, "cockpit", "sha256:2"),
        payload(APPLICATION, "brake", "sha256:1"),
        payload(PACKAGE, "cockpit", "sha256:1"),
    ):
        assert not is_signed(other, [made], trusted)
    assert not is_signed(payload(APPLICATION, "cockpit", "sha256:1"), [made], [public(STRANGE)])
    assert not is_signed(
        payload(APPLICATION, "cockpit", "sha256:1"), ["", "no base64!", "AAAA"], ["nonsense", *trusted]
    )


def test_keys_that_cannot_be_used_are_told_and_not_shown() -> None:
    secret = private(OURS, b"secret")
    for data, says in (
        (secret, "is encrypted"),
        (b"nonsense", "no private key in PEM"),
        (private(rsa.generate_private_key(65537, 2048)), "neither Ed25519 nor"),
        (private(ec.generate_private_key(ec.SECP384R1())), "neither Ed25519 nor"),
    ):
        with pytest.raises(SigningError, match=says) as told:
            private_key(data)
        assert data.decode() not in str(told.value)
    with pytest.raises(SigningError, match="no public key in PEM"):
        public_key(private(OURS).decode())


# -- packages


def packed(tmp_path: Path, name: str, key: Any, content: bytes = b"layer") -> Path:
    archive = image_archive(tmp_path / f"{name}-image.tar", "app:1", content)
    target = tmp_path / f"{name}.tar"
    pack([application("app:1")], [archive], target, key)
    return target


def test_a_package_is_verified_against_the_keys_one_trusts(tmp_path: Path) -> None:
    signed, plain = packed(tmp_path, "signed", OURS), packed(tmp_path, "plain", None)
    assert sorted(verify(signed, trusted=[public(STRANGE), public(OURS)]).images) == ["app:1"]
    for path, trusted in ((signed, STRANGE), (plain, OURS)):
        with pytest.raises(PackageError, match="not signed by a key that is trusted"):
            verify(path, trusted=[public(trusted)])
    again = tmp_path / "again"
    again.mkdir()
    assert packed(again, "signed", OURS).read_bytes() == signed.read_bytes()


def test_a_signature_of_another_package_does_not_help(tmp_path: Path) -> None:
    signed, evil = read(packed(tmp_path, "signed", OURS)), read(packed(tmp_path, "evil", STRANGE, b"evil"))
    index, theirs = orjson.loads(evil["index.json"]), orjson.loads(signed["index.json"])["manifests"]
    index["manifests"] = [one for one in index["manifests"] if one.get("artifactType") != SIGNATURE]
    ours = [one for one in theirs if one.get("artifactType") == SIGNATURE]
    index["manifests"] += ours
    made = write(tmp_path / "made.tar", {**signed, **evil, "index.json": orjson.dumps(index)})
    with pytest.raises(PackageError, match="not signed by a key that is trusted"):
        verify(made, trusted=[public(OURS)])


def test_an_image_that_was_exchanged_is_noticed_though_every_digest_is_right(tmp_path: Path) -> None:
    ours, evil = read(packed(tmp_path, "ours", OURS)), read(packed(tmp_path, "evil", None, b"evil"))
    index = orjson.loads(ours["index.json"])
    others = [one for one in orjson.loads(evil["index.json"])["manifests"] if one.get("artifactType") != ARTIFACT]
    index["manifests"] = [one for one in index["manifests"] if one.get("artifactType")] + others
    every = {**evil, **ours, "index.json": orjson.dumps(index)}
    with pytest.raises(PackageError, match="holds other images than it was made with"):
        verify(write(tmp_path / "made.tar", _without_strays(every, tmp_path)), trusted=[public(OURS)])


def _without_strays(files: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    while True:
        try:
            verify(write(tmp_path / "try.tar", files))
        except PackageError as error:
            if "nothing in it refers to" not in str(error):
                return files
            stray = next(name for name in files if name.rpartition("/")[2] in str(error))
            files = {name: data for name, data in files.items() if name != stray}
        else:
            return files


def test_the_commands_sign_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests, key, known, strange = (tmp_path / one for one in ("app.yaml", "key.pem", "public.pem", "strange.pem"))
    manifests.write_text(yaml.dump_all([application("app:1")]))
    key.write_bytes(private(OURS))
    known.write_text(public(OURS))
    strange.write_text(public(STRANGE))
    archive, target = str(image_archive(tmp_path / "one.tar", "app:1")), str(tmp_path / "app.tar")

    words = ["vehicles", "pack", str(manifests), "--image", archive, "--sign", str(key), "-o", target]
    assert run(words) == 0
    digest = capsys.readouterr().out.split()[0]
    assert run(["vehicles", "verify", target, "--key", str(known), "--digest", digest]) == 0
    assert run(["vehicles", "unpack", target, "--key", str(known), "--into", str(tmp_path / "out")]) == 0
    (made,) = yaml.load_all((tmp_path / "out" / "manifests.yaml").read_bytes())
    assert len(made.value["spec"]["signatures"]) == 1
    capsys.readouterr()
    assert run(["vehicles", "verify", target, "--key", str(strange)]) == 1
    assert "is not signed by a key that is trusted" in capsys.readouterr().err
    assert run(["vehicles", "verify", target, "--key", str(key)]) == 1
    assert "no public key in PEM" in capsys.readouterr().err
    assert run(["vehicles", "verify", str(tmp_path / "none.tar")]) == 1


# -- the server


def signed(key: Any = OURS, name: str = "cockpit", image: str = "app:1", app_type: str = "trusted") -> Object:
    made = application(image)
    made["metadata"]["name"] = name
    made["spec"]["microservices"][0]["spec"]["appType"] = app_type
    (ready,) = with_digests([made], key)
    return ready


def app_type(*keys: str, **spec: Any) -> Object:
    return {"metadata": {"name": "trusted"}, "spec": {"limited": False, "trustedKeys": list(keys), **spec}}


@staged(nodes=1)
async def test_only_what_a_trusted_key_signed_under_this_name_is_let_in(stage: Stage) -> None:
    await stage.client.create(AppType, app_type(public(OURS)))
    bad = [
        signed(STRANGE),
        signed(None),
        {**signed(), "metadata": {"name": "brake"}},
        {**signed(), "spec": {**signed(image="evil:1")["spec"], "signatures": signed()["spec"]["signatures"]}},
    ]
    for one in bad:
        with pytest.raises(ApiError, match="rule package-signature") as refused:
            await stage.client.create(VehApplication, one, "default")
        assert refused.value.code == 403

    await stage.client.create(VehApplication, signed(), "default")
    await stage.running("cockpit", VehApplication)

    with pytest.raises(ApiError, match="rule package-signature"):
        await stage.client.patch(VehApplication, "cockpit", {"spec": {"signatures": []}}, "default")
    await stage.client.patch(VehApplication, "cockpit", {"spec": {"state": "Stopped"}}, "default")
    update = signed(image="app:2")["spec"]
    await stage.client.patch(VehApplication, "cockpit", {"spec": {**update, "state": "Running"}}, "default")
    await stage.running("cockpit", VehApplication)


@staged(nodes=1)
async def test_there_is_no_other_way_in(stage: Stage) -> None:
    await stage.client.create(AppType, app_type(public(OURS)))
    await stage.client.create(VehApplication, signed(), "default")
    await stage.running("cockpit", VehApplication)
    await stage.client.create(VehPod, veh_pod("plain"), "default")
    evil = pod_spec(containers=[{"name": "c", "image": "evil:1"}])
    tries: list[tuple[str, Object]] = [
        ("cockpit-s0", {"spec": {"podSpec": evil}}),
        ("cockpit-s0", {"spec": {"appType": "system"}}),
        ("cockpit-s0", {"metadata": {"annotations": {GOOD: "{}"}}}),
        ("plain", {"spec": {"appType": "trusted"}}),
    ]
    for name, patch in tries:
        with pytest.raises(ApiError, match="rule package-signature"):
            await stage.client.patch(VehPod, name, patch, "default")
    with pytest.raises(ApiError, match="rule package-signature"):
        await stage.client.create(VehPod, veh_pod("own", "trusted"), "default")
    await stage.client.patch(VehPod, "cockpit-s0", {"metadata": {"labels": {"seen": "yes"}}}, "default")


@staged(nodes=1)
async def test_pods_of_a_signed_class_are_not_made_or_changed_by_hand(stage: Stage) -> None:
    await stage.client.create(AppType, app_type(public(OURS)))
    await stage.client.create(VehApplication, signed(), "default")
    await stage.running("cockpit", VehApplication)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "d"}, "roleRef": role, "subjects": [{"kind": "User", "name": DEVELOPER.name}]}
    space = "trusted-application"
    await stage.client.create(ROLE_BINDINGS, binding, space)
    developer = stage.server.client(DEVELOPER)
    with pytest.raises(ApiError, match="rule package-signature"):
        await developer.create(PODS, {"metadata": {"name": "own"}, "spec": pod_spec()}, space)
    image = {"spec": {"containers": [{"name": "c", "image": "evil:1"}]}}
    with pytest.raises(ApiError, match="rule package-signature"):
        await developer.patch(PODS, "cockpit-s0", image, space, type="strategic")
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "evil:1"}]}}
    with pytest.raises(ApiError, match="rule package-signature"):
        await developer.patch(PODS, "cockpit-s0", debug, space, type="strategic", subresource="ephemeralcontainers")
    await developer.patch(PODS, "cockpit-s0", {"metadata": {"labels": {"seen": "yes"}}}, space)


@staged(nodes=1)
async def test_a_rule_on_signals_changes_nothing_there(stage: Stage) -> None:
    await stage.client.create(AppType, app_type(public(OURS)))
    await stage.client.create(VehApplication, signed(), "default")
    await stage.running("cockpit", VehApplication)
    await stage.client.create(VehPod, veh_pod("plain"), "default")
    evil = pod_spec(containers=[{"name": "c", "image": "evil:1"}])
    for number, (target, update) in enumerate([("cockpit-s0", {"podSpec": evil}), ("plain", {"appType": "trusted"})]):
        rule = {"action": "update", "target": [f"VehPod/{target}"], "lifeTime": "OneTime", "update": update}
        await stage.client.create(
            LifecycleManagingRule, {"metadata": {"name": f"r{number}"}, "spec": {"name": "r", **rule}}, "default"
        )

        async def done(name: str = f"r{number}") -> bool:
            found = await stage.client.get(LifecycleManagingRule, name, "default")
            return "rule package-signature" in str((found.get("status") or {}).get("lastOutcome"))

        await stage.until(done)
    found = await stage.client.get(VehPod, "cockpit-s0", "default")
    assert found["spec"]["podSpec"]["containers"][0]["image"] == "app:1"


@staged(nodes=1)
async def test_a_class_that_begins_to_trust_keys_lets_nothing_new_in_and_what_runs_goes_on(stage: Stage) -> None:
    await stage.client.create(AppType, app_type())
    await stage.client.create(VehApplication, signed(STRANGE), "default")
    await stage.running("cockpit", VehApplication)
    await stage.client.patch(AppType, "trusted", {"spec": {"trustedKeys": [public(OURS)]}})

    told = await stage.says("cockpit", "Ready", "False", VehApplication)
    assert (told["reason"], "rule package-signature" in told["message"]) == ("NotSigned", True)
    assert await stage.pod("cockpit-s0", "trusted-application") is not None

    await stage.client.patch(AppType, "trusted", {"spec": {"trustedKeys": [public(OURS), public(STRANGE)]}})
    await stage.says("cockpit", "Ready", "True", VehApplication)


@staged(nodes=1)
async def test_a_class_nobody_would_find_and_a_key_nobody_can_read_are_refused(stage: Stage) -> None:
    with pytest.raises(ApiError, match=r"another word for 3rd-party.*rule app-type-name"):
        await stage.client.create(AppType, {"metadata": {"name": "third-party"}, "spec": {}})
    with pytest.raises(ApiError, match="rule trusted-key"):
        await stage.client.create(AppType, app_type("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----"))
