"""VMs of libvirt, through its own binding (``libvirt-python``, which whoever wants it installs).

A VM is a domain whose UUID follows from the token and whose token and tags stand in its metadata, so it is defined once however
often it is asked for, and found by whoever lists domains. Its disk is a copy-on-write volume over the image's. Order: the
domain is defined before its disk is made and undefined after the disk is gone, so what is left after a crash has a name.

Where libvirt is said by a ConfigMap, and tenants may write those: so a URI must lead to another machine and may have no
parameter that runs programs or opens files of this one. URIs of this machine are allowed by who runs the operator.
"""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as Xml

from fleetplane.operators.peerpods.providers.protocol import (
    RECORD_TAG,
    Failure,
    Instance,
    Provider,
    ProviderError,
    Size,
    State,
    Surroundings,
    VmSpec,
)

DEFAULT_URI: Final = "qemu+tls://"
NAMESPACE: Final = "https://fleetplane.io/podvm/1"
DOMAINS: Final = uuid.UUID("6f1c9f0e-6d0a-5f6e-9c1c-0d2f6b8f5a11")
"""What UUIDs of domains are made from, with the token."""
_SCHEMES: Final = frozenset({"qemu+tls", "qemu+ssh", "qemu+libssh2", "qemu+libssh"})
_PARAMETERS: Final = frozenset({"no_verify", "no_tty", "known_hosts_verify"})
_HOST: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:\-\]]*")
_PATHS: Final = frozenset({"", "/", "/system", "/session"})

_AUTH, _NO_CONNECT, _RPC, _SYSTEM, _TIMEOUT, _NO_DOMAIN, _NO_VOLUME, _EXISTS = 45, 5, 39, 38, 68, 42, 50, 90
_STATES: Final[Mapping[int, State]] = {
    1: "running",
    2: "running",
    3: "stopped",
    4: "deleting",
    5: "stopped",
    6: "stopped",
}
_UNDEFINE_EVERYTHING: Final = 1 | 2
"""A managed save and snapshots' metadata go too."""

T = TypeVar("T")


def libvirt(local: Collection[str] = ()) -> Callable[[Mapping[str, str], Surroundings], Provider]:
    """A factory. ``local`` are URIs of this machine that settings may name.

    Settings as the adaptor's: LIBVIRT_URI, LIBVIRT_POOL, LIBVIRT_NET, LIBVIRT_VOL_NAME, LIBVIRT_CPU, LIBVIRT_MEMORY (MiB).
    """

    def factory(settings: Mapping[str, str], _surroundings: Surroundings) -> Provider:
        try:
            binding: Any = import_module("libvirt")
        except ImportError:
            raise ProviderError(
                Failure.UNSUPPORTED, "the provider libvirt needs its binding: pip install fleetplane[libvirt]"
            ) from None
        return Libvirt(binding, checked_uri(settings.get("LIBVIRT_URI", ""), local), settings)

    return factory


def checked_uri(uri: str, local: Collection[str] = ()) -> str:
    """The URI, if it is one that tenants may name. Raises ProviderError."""
    if uri in local:
        return uri
    parts = urlsplit(uri)
    host = parts.hostname or ""
    keys = {key for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
    user_is_plain = parts.username is None or re.fullmatch(r"[A-Za-z0-9_][\w.\-]*", parts.username) is not None
    good = parts.scheme in _SCHEMES and _HOST.fullmatch(host) and user_is_plain and parts.password is None
    if not good or parts.path not in _PATHS or keys - _PARAMETERS or parts.fragment:
        raise ProviderError(
            Failure.REFUSED,
            f"LIBVIRT_URI {uri[:80]!r} is not of the form qemu+tls://HOST/system or qemu+ssh://USER@HOST/system;"
            " URIs of this machine are allowed by who runs the operator",
        )
    return uri


class Libvirt:
    """A Provider over the binding, which blocks: every call runs in a thread."""

    def __init__(self, binding: Any, uri: str, settings: Mapping[str, str]) -> None:
        self._binding = binding
        self._uri = uri
        self._pool = settings.get("LIBVIRT_POOL") or "default"
        self._network = settings.get("LIBVIRT_NET") or "default"
        self._base = settings.get("LIBVIRT_VOL_NAME") or "podvm-base.qcow2"
        self._default = Size(_number(settings, "LIBVIRT_CPU", 2), _number(settings, "LIBVIRT_MEMORY", 8192))
        self._connection: Any = None
        self._opening = threading.Lock()

    async def create(self, spec: VmSpec) -> Instance:
        if spec.user_data:
            raise ProviderError(Failure.UNSUPPORTED, "VMs under libvirt get no user data")
        if spec.size.gpus or spec.size.instance_type:
            raise ProviderError(
                Failure.REFUSED, "VMs under libvirt have no instance types and no GPUs; ask for vcpus and memory"
            )
        return await self._call(lambda connection: self._create(connection, spec))

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        wanted = id or _uuid_of(token)
        return await self._call(lambda connection: self._describe(connection, wanted))

    async def delete(self, id: str) -> None:
        await self._call(lambda connection: self._delete(connection, id))

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        def all_of_ours(connection: Any) -> Sequence[Instance]:
            found = [self._instance(domain) for domain in connection.listAllDomains()]
            return [one for one in found if one is not None and tags.items() <= one.tags.items()]

        return await self._call(all_of_ours)

    async def resize(self, id: str, size: Size) -> Instance:
        raise ProviderError(Failure.UNSUPPORTED, "a VM under libvirt keeps its size; make a new peer pod")

    # -- in a thread

    def _create(self, connection: Any, spec: VmSpec) -> Instance:
        domain = self._find(connection, _uuid_of(spec.token))
        if domain is None:
            kind = "test" if self._uri.startswith("test:") else "kvm"
            disk = self._disk_path(connection, spec)
            domain = connection.defineXML(domain_xml(spec, self._default, disk, self._network, kind))
        if not domain.isActive():
            self._disk(connection, spec)
            domain.create()
        made = self._instance(domain)
        if made is None:
            raise ProviderError(Failure.REFUSED, f"the domain {domain.name()} is of somebody else")
        return made

    def _describe(self, connection: Any, id: str) -> Instance | None:
        domain = self._find(connection, id)
        return None if domain is None else self._instance(domain)

    def _delete(self, connection: Any, id: str) -> None:
        domain = self._find(connection, id)
        if domain is None or self._instance(domain) is None:
            return  # gone, or not one of ours
        if domain.isActive():
            domain.destroy()
        volume = self._volume(connection, _disk_name(domain.UUIDString()))
        if volume is not None:
            volume.delete()
        domain.undefineFlags(_UNDEFINE_EVERYTHING)

    def _find(self, connection: Any, id: str) -> Any:
        try:
            return connection.lookupByUUIDString(str(uuid.UUID(id)))
        except ValueError:
            return None
        except self._binding.libvirtError as error:
            if error.get_error_code() == _NO_DOMAIN:
                return None
            raise

    def _volume(self, connection: Any, name: str) -> Any:
        try:
            return connection.storagePoolLookupByName(self._pool).storageVolLookupByName(name)
        except self._binding.libvirtError as error:
            if error.get_error_code() == _NO_VOLUME:
                return None
            raise

    def _disk_path(self, connection: Any, spec: VmSpec) -> str:
        pool = Xml.fromstring(connection.storagePoolLookupByName(self._pool).XMLDesc())  # noqa: S314 - libvirt's own
        return f"{pool.findtext('target/path') or ''}/{_disk_name(_uuid_of(spec.token))}"

    def _disk(self, connection: Any, spec: VmSpec) -> None:
        name = _disk_name(_uuid_of(spec.token))
        if self._volume(connection, name) is not None:
            return
        base = self._volume(connection, spec.image or self._base)
        if base is None:
            raise ProviderError(
                Failure.REFUSED,
                f"the pool {self._pool} has no volume {spec.image or self._base}; upload the pod VM's image",
            )
        xml = volume_xml(name, base.info()[1], base.path())
        try:
            connection.storagePoolLookupByName(self._pool).createXML(xml)
        except self._binding.libvirtError as error:
            if error.get_error_code() != _EXISTS:
                raise

    def _instance(self, domain: Any) -> Instance | None:
        """The VM of a domain; ``None`` for a domain that is not ours."""
        try:
            text = domain.metadata(2, NAMESPACE)
        except self._binding.libvirtError:
            return None
        said = Xml.fromstring(text)  # noqa: S314 - as this module wrote it, from libvirt
        tags = {str(one.get("name")): str(one.get("value")) for one in said if one.tag.rpartition("}")[2] == "tag"}
        state, _ = domain.state()
        _, maximum, _, vcpus, _ = domain.info()
        addresses: list[str] = []
        if state == 1:
            try:
                found = domain.interfaceAddresses(0)
                addresses = [one["addr"] for card in found.values() for one in card.get("addrs") or ()]
            except self._binding.libvirtError:
                addresses = []
        return Instance(
            domain.UUIDString(),
            _STATES.get(state, "pending"),
            str(said.get("token") or ""),
            tags,
            tuple(addresses),
            Size(int(vcpus), int(maximum) // 1024),
        )

    async def _call(self, call: Callable[[Any], T]) -> T:
        def run() -> T:
            try:
                return call(self._connected())
            except self._binding.libvirtError as error:
                raise _failure(error) from None

        return await asyncio.to_thread(run)

    def _connected(self) -> Any:
        with self._opening:
            if self._connection is None or not self._connection.isAlive():
                self._binding.registerErrorHandler(lambda *_: None, None)  # it would write to our standard error
                self._connection = self._binding.open(self._uri)
            return self._connection


def domain_xml(spec: VmSpec, default: Size, disk: str, network: str, kind: str = "kvm") -> str:
    """The domain of a VM: its size, its disk, a card in the network, and who it is. ``kind`` is the hypervisor's."""
    domain = Xml.Element("domain", type=kind)
    Xml.SubElement(domain, "name").text = spec.name
    Xml.SubElement(domain, "uuid").text = _uuid_of(spec.token)
    Xml.SubElement(domain, "memory", unit="MiB").text = str(spec.size.memory_mib or default.memory_mib)
    Xml.SubElement(domain, "vcpu").text = str(spec.size.vcpus or default.vcpus)
    ours = Xml.SubElement(Xml.SubElement(domain, "metadata"), f"{{{NAMESPACE}}}vm", token=spec.token)
    for name, value in sorted({**spec.tags, RECORD_TAG: spec.tags.get(RECORD_TAG, spec.token)}.items()):
        Xml.SubElement(ours, f"{{{NAMESPACE}}}tag", name=name, value=value)
    system = Xml.SubElement(domain, "os")
    Xml.SubElement(system, "type").text = "hvm"
    Xml.SubElement(system, "boot", dev="hd")
    Xml.SubElement(Xml.SubElement(domain, "features"), "acpi")
    devices = Xml.SubElement(domain, "devices")
    drive = Xml.SubElement(devices, "disk", type="file", device="disk")
    Xml.SubElement(drive, "driver", name="qemu", type="qcow2")
    Xml.SubElement(drive, "source", file=disk)
    Xml.SubElement(drive, "target", dev="vda", bus="virtio")
    card = Xml.SubElement(devices, "interface", type="network")
    Xml.SubElement(card, "source", network=network)
    Xml.SubElement(card, "model", type="virtio")
    return Xml.tostring(domain, encoding="unicode")


def volume_xml(name: str, capacity: int, backing: str) -> str:
    """A volume that holds what differs from the image."""
    volume = Xml.Element("volume", type="file")
    Xml.SubElement(volume, "name").text = name
    Xml.SubElement(volume, "capacity", unit="bytes").text = str(capacity)
    Xml.SubElement(volume, "allocation").text = "0"
    Xml.SubElement(Xml.SubElement(volume, "target"), "format", type="qcow2")
    behind = Xml.SubElement(volume, "backingStore")
    Xml.SubElement(behind, "path").text = backing
    Xml.SubElement(behind, "format", type="qcow2")
    return Xml.tostring(volume, encoding="unicode")


def _failure(error: Any) -> ProviderError:
    code, text = error.get_error_code(), str(error.get_error_message() or "")[:200]
    if code == _AUTH:
        return ProviderError(Failure.CREDENTIALS, f"libvirt refuses the credentials: {text}")
    if code in {_NO_CONNECT, _RPC, _SYSTEM}:
        return ProviderError(Failure.UNAVAILABLE, f"libvirt cannot be reached: {text}")
    if code == _TIMEOUT:
        return ProviderError(Failure.TIMED_OUT, f"libvirt did not do it in time: {text}")
    return ProviderError(Failure.REFUSED, f"libvirt says: {text}")


def _uuid_of(token: str) -> str:
    return str(uuid.uuid5(DOMAINS, token))


def _disk_name(id: str) -> str:
    return f"podvm-{id}.qcow2"


def _number(settings: Mapping[str, str], key: str, default: int) -> int:
    text = settings.get(key) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 24):
        raise ProviderError(Failure.REFUSED, f"{key} {text[:20]!r} is no whole number above zero")
    return int(text)
