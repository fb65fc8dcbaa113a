"""An application as one file: everything in it, and nothing that is not what it says."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image
from tests.operators.vehicles.stage import Stage, pod_spec, staged

from fleetplane.model import yaml
from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles.kinds import VehApplication
from fleetplane.operators.vehicles.package import (
    MANIFEST,
    REF,
    PackageError,
    digest,
    main,
    pack,
    unpack,
    verify,
    with_digests,
)


def application(*images: str) -> dict[str, Any]:
    services = [
        {"name": f"s{n}", "spec": {"appType": "system", "podSpec": pod_spec(containers=[{"name": "c", "image": one}])}}
        for n, one in enumerate(images)
    ]
    return {
        "apiVersion": "crd.piccolo.org/v1alpha1",
        "kind": "VehApplication",
        "metadata": {"name": "cockpit"},
        "spec": {"microservices": services},
    }


def write(target: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(target, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def image_archive(target: Path, name: str, content: bytes = b"layer") -> Path:
    """The smallest OCI archive of one image."""
    config = b'{"architecture":"amd64","os":"linux"}'

    def descriptor(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    layers = [descriptor("application/vnd.oci.image.layer.v1.tar", content)]
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": layers,
        }
    )
    index = {"schemaVersion": 2, "manifests": [{**descriptor(MANIFEST, manifest), "annotations": {REF: name}}]}
    blobs = {f"blobs/sha256/{digest(one)[7:]}": one for one in (config, content, manifest)}
    return write(target, {"oci-layout": b"{}", "index.json": orjson.dumps(index), **blobs})


def packed(tmp_path: Path) -> Path:
    first = image_archive(tmp_path / "one.tar", "app:1", b"one")
    second = image_archive(tmp_path / "two.tar", "app:2", b"two")
    target = tmp_path / "cockpit.tar"
    pack([application("app:1", "app:2")], [first, second], target)
    return target


def test_a_package_holds_everything_and_says_the_same_twice(tmp_path: Path) -> None:
    path = packed(tmp_path)
    package = verify(path)
    assert sorted(package.images) == ["app:1", "app:2"]
    assert package.objects[0]["spec"]["digest"].startswith("sha256:")
    again = tmp_path / "again.tar"
    pack([application("app:1", "app:2")], [tmp_path / "two.tar", tmp_path / "one.tar"], again)
    assert again.read_bytes() == path.read_bytes()
    assert verify(path, package.digest).digest == package.digest
    with pytest.raises(PackageError, match="and not sha256:0"):
        verify(path, "sha256:" + "0" * 64)


def test_an_image_that_is_named_must_be_inside(tmp_path: Path) -> None:
    archive = image_archive(tmp_path / "one.tar", "app:1")
    with pytest.raises(PackageError, match="no archive holds the image app:2"):
        pack([application("app:1", "app:2")], [archive], tmp_path / "x.tar")


def test_whatever_is_changed_is_noticed(tmp_path: Path) -> None:
    """Every file of the archive, one after another, with one byte more, one byte other, and gone."""
    path = packed(tmp_path)
    files = read(path)
    for name in files:
        if name == "oci-layout":
            continue
        for change in (lambda data: data + b" ", lambda data: bytes([data[0] ^ 1]) + data[1:], lambda _data: None):
            changed = change(files[name])
            made = {key: value for key, value in files.items() if key != name}
            if changed is not None:
                made[name] = changed
            if name == "index.json" and changed == files[name] + b" ":
                continue  # white space in the index changes nothing
            with pytest.raises(PackageError):
                verify(write(tmp_path / "changed.tar", made))


def test_what_nothing_refers_to_and_what_comes_twice_is_refused(tmp_path: Path) -> None:
    files = read(packed(tmp_path))
    stray = {**files, f"blobs/sha256/{digest(b'stray')[7:]}": b"stray"}
    with pytest.raises(PackageError, match="nothing in it refers to"):
        verify(write(tmp_path / "stray.tar", stray))
    twice = tmp_path / "twice.tar"
    write(twice, files)
    with tarfile.open(twice, "a") as tar:
        entry = tarfile.TarInfo("index.json")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(PackageError, match="a file twice"):
        verify(twice)


def test_an_application_that_was_changed_after_it_was_made_is_refused(tmp_path: Path) -> None:
    ready = with_digests([application("app:1")])
    ready[0]["spec"]["microservices"][0]["spec"]["podSpec"]["containers"][0]["image"] = "evil:1"
    from fleetplane.operators.vehicles.package import check_objects

    with pytest.raises(PackageError, match="package-digest"):
        check_objects(ready)


def test_however_large_an_image_is_little_of_it_is_in_memory(tmp_path: Path) -> None:
    large = image_archive(tmp_path / "large.tar", "app:1", b"x" * (32 << 20))
    tracemalloc.start()
    try:
        pack([application("app:1")], [large], tmp_path / "cockpit.tar")
        unpack(tmp_path / "cockpit.tar", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cockpit.tar", "large.tar", "out"]


def test_what_should_be_small_and_is_not_is_not_read(tmp_path: Path) -> None:
    files = {**read(packed(tmp_path)), "index.json": b" " * (9 << 20)}
    with pytest.raises(PackageError, match="is larger than 8 MiB"):
        verify(write(tmp_path / "large.tar", files))


def test_a_blob_that_is_not_what_it_says_leaves_no_half_package(tmp_path: Path) -> None:
    files = read(image_archive(tmp_path / "one.tar", "app:1"))
    layer = f"blobs/sha256/{digest(b'layer')[7:]}"
    changed = write(tmp_path / "changed.tar", {**files, layer: b"evil!"})
    with pytest.raises(PackageError, match="has other content"):
        pack([application("app:1")], [changed], tmp_path / "cockpit.tar")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["changed.tar", "one.tar"]


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 1024])
def test_what_is_no_package_is_told_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"x\.tar"):
        verify(path)


def test_the_command_packs_verifies_and_unpacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifests = tmp_path / "cockpit.yaml"
    manifests.write_text(yaml.dump_all([application("app:1")]))
    archive, target = image_archive(tmp_path / "one.tar", "app:1"), tmp_path / "cockpit.tar"

    assert main(["pack", str(manifests), "--image", str(archive), "-o", str(target)]) == 0
    said = capsys.readouterr().out.split()
    assert main(["verify", str(target), "--digest", said[0]]) == 0
    assert main(["unpack", str(target), "--into", str(tmp_path / "out")]) == 0
    assert main(["verify", str(target), "--digest", "sha256:1"]) == 1
    assert "error: " in capsys.readouterr().err

    (only,) = yaml.load_all((tmp_path / "out" / "manifests.yaml").read_bytes())
    assert only.value["spec"]["digest"]
    inside = read(tmp_path / "out" / "images" / "000.tar")
    assert orjson.loads(inside["index.json"])["manifests"][0]["annotations"][REF] == "app:1"

    assert main(["pack", str(manifests), "--no-images", "-o", str(tmp_path / "one.yaml")]) == 0
    (one,) = yaml.load_all((tmp_path / "one.yaml").read_bytes())
    assert one.value == only.value


@staged(nodes=1)
async def test_a_package_is_taken_by_the_server_as_it_is_and_not_when_it_was_changed(stage: Stage) -> None:
    (ready,) = with_digests([application("app:1", "app:2")])
    made = await stage.client.create(VehApplication, ready, "default")
    assert made["spec"]["digest"] == ready["spec"]["digest"]
    await stage.running("cockpit", VehApplication)
    ready["metadata"] = {"name": "other"}
    ready["spec"]["microservices"][1]["spec"]["podSpec"]["containers"][0]["image"] = "evil:1"
    with pytest.raises(ApiError, match="rule package-digest"):
        await stage.client.create(VehApplication, ready, "default")


@staged(nodes=1)
async def test_an_application_is_looked_at_as_one(stage: Stage) -> None:
    """``kubectl get vehapplication`` says how each part is; its pods have a label for ``kubectl logs -l``."""
    await stage.client.create(VehApplication, application("app:1", "app:2"), "default")
    await stage.running("cockpit", VehApplication)
    status = (await stage.client.get(VehApplication, "cockpit", "default"))["status"]
    assert [(one["name"], one["workload"], one["state"], one["current"]) for one in status["microservices"]] == [
        ("s0", "VehPod/cockpit-s0", "Running", True),
        ("s1", "VehPod/cockpit-s1", "Running", True),
    ]
    labels = [one["metadata"]["labels"] for one in await stage.pods()]
    assert {one["vehicles.fleetplane.io/application"] for one in labels} == {"cockpit"}
    assert {one["vehicles.fleetplane.io/microservice"] for one in labels} == {"s0", "s1"}
    await asyncio.sleep(0)


@pytest.mark.podman
def test_podman_loads_the_images_of_a_package(tmp_path: Path) -> None:
    if reason := why_not_podman():
        pytest.skip(reason)
    podman = shutil.which("podman") or ""
    name = "localhost/fleetplane-packaged:1"
    root = image.write_root(tmp_path / "root.tar")
    subprocess.run([podman, "import", "-q", str(root), name], check=True, stdout=subprocess.DEVNULL)
    saved = tmp_path / "image.tar"
    subprocess.run([podman, "save", "-q", "--format", "oci-archive", "-o", str(saved), name], check=True)
    subprocess.run([podman, "rmi", "-f", name], check=True, stdout=subprocess.DEVNULL)

    pack([application(name)], [saved], tmp_path / "cockpit.tar")
    unpack(tmp_path / "cockpit.tar", tmp_path / "out")

    archive = str(tmp_path / "out" / "images" / "000.tar")
    subprocess.run([podman, "load", "-q", "-i", archive], check=True, stdout=subprocess.DEVNULL)
    assert subprocess.run([podman, "image", "exists", name], check=False).returncode == 0
    subprocess.run([podman, "rmi", "-f", name], check=True, stdout=subprocess.DEVNULL)
