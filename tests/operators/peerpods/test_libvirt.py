"""libvirt's own test driver: domains that exist in memory, asked for through the real binding."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from fleetplane.operators.peerpods.providers.libvirt import checked_uri, libvirt, volume_xml
from fleetplane.operators.peerpods.providers.protocol import (
    CLUSTER_TAG,
    Failure,
    Provider,
    ProviderError,
    Size,
    Surroundings,
    VmSpec,
)

URI = "test:///default"
TAGS = {CLUSTER_TAG: "c"}


@pytest.fixture
def host() -> Iterator[Any]:
    binding = pytest.importorskip("libvirt", reason="libvirt-python is not installed (pip install fleetplane[libvirt])")
    connection = binding.open(URI)
    pool = connection.storagePoolLookupByName("default-pool")
    pool.createXML(volume_xml("podvm-base.qcow2", 1 << 30, "/nothing"))
    (own,) = [one.name() for one in connection.listAllDomains()]
    yield connection
    for domain in connection.listAllDomains():
        if domain.name() != own:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    for volume in pool.listAllVolumes():
        volume.delete()
    connection.close()


def provider(**settings: str) -> Provider:
    given = {"LIBVIRT_URI": URI, "LIBVIRT_POOL": "default-pool", **settings}
    return libvirt([URI])(given, None)  # type: ignore[arg-type]


def spec(token: str, **size: Any) -> VmSpec:
    return VmSpec(token, f"podvm-{token}", TAGS, Size(**size))


def disks(host: Any) -> list[str]:
    return [
        one.name() for one in host.storagePoolLookupByName("default-pool").listAllVolumes() if "base" not in one.name()
    ]


async def test_one_domain_for_a_token_found_by_its_tags(host: Any) -> None:
    first = await provider().create(spec("a", vcpus=2, memory_mib=512))
    again = await provider().create(spec("a", vcpus=2, memory_mib=512))

    assert (first.id, first.state) == (again.id, "running")
    assert (first.size.vcpus, first.size.memory_mib) == (2, 512)
    assert [one.id for one in await provider().list(TAGS)] == [first.id]
    assert await provider().list({CLUSTER_TAG: "another"}) == []
    assert await provider().describe(token="a") == await provider().describe(id=first.id)
    assert len(disks(host)) == 1


async def test_deleting_takes_the_disk_along_and_gone_already_is_success(host: Any) -> None:
    made = await provider().create(spec("a"))

    await provider().delete(made.id)
    await provider().delete(made.id)
    await provider().delete(str(uuid.uuid4()))
    await provider().delete("no uuid")

    assert await provider().describe(token="a") is None
    assert disks(host) == []


async def test_domains_of_others_are_neither_listed_nor_deleted(host: Any) -> None:
    (other,) = host.listAllDomains()

    await provider().delete(other.UUIDString())

    assert await provider().list({}) == []
    assert [one.name() for one in host.listAllDomains()] == [other.name()]


async def test_a_domain_that_was_defined_and_never_started_is_started_by_the_next_who_asks(host: Any) -> None:
    made = await provider().create(spec("a"))
    host.lookupByUUIDString(made.id).destroy()
    assert (await provider().list(TAGS))[0].state == "stopped"

    again = await provider().create(spec("a"))

    assert (again.id, again.state) == (made.id, "running")


async def test_without_the_image_it_is_said_what_to_do_and_the_wish_can_be_deleted(host: Any) -> None:
    with pytest.raises(ProviderError, match="upload the pod VM's image"):
        await provider(LIBVIRT_VOL_NAME="none.qcow2").create(spec("a"))

    (left,) = await provider().list(TAGS)
    await provider().delete(left.id)
    assert await provider().list(TAGS) == []


async def test_failures_of_libvirt_are_told_by_kind(host: Any) -> None:
    with pytest.raises(ProviderError) as caught:
        await libvirt(["test:///no/such/file"])({"LIBVIRT_URI": "test:///no/such/file"}, None).list({})  # type: ignore[arg-type]
    assert caught.value.failure in {Failure.UNAVAILABLE, Failure.REFUSED}
    with pytest.raises(ProviderError, match="LIBVIRT_CPU"):
        provider(LIBVIRT_CPU="many")
    with pytest.raises(ProviderError) as caught:
        await provider().resize("x", Size(4))
    assert caught.value.failure is Failure.UNSUPPORTED


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu:///system",
        "test:///default",
        "qemu+unix:///system?socket=/x",
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://host/system?command=/bin/sh",
        "qemu+ssh://host/system?netcat=/bin/sh",
        "qemu+ssh://root@-oProxyCommand=sh/system",
        "qemu+ssh://-oProxyCommand=sh@host/system",
        "qemu+ssh://host/system?keyfile=/etc/shadow",
        "esx://host/",
    ],
)
def test_a_uri_that_leads_into_this_machine_is_refused(uri: str) -> None:
    with pytest.raises(ProviderError, match="LIBVIRT_URI"):
        checked_uri(uri)


@pytest.mark.parametrize("uri", ["qemu+tls://host/system", "qemu+ssh://root@192.168.122.1/system?no_verify=1"])
def test_a_uri_of_another_machine_is_taken(uri: str) -> None:
    assert checked_uri(uri) == uri


def test_without_its_binding_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "libvirt", None)
    surroundings: Surroundings = None  # type: ignore[assignment]

    with pytest.raises(ProviderError, match=r"fleetplane\[libvirt\]"):
        libvirt()({"LIBVIRT_URI": "qemu+tls://h/system"}, surroundings)
