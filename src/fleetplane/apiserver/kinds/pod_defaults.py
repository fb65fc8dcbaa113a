"""Defaults of a pod and of a pod template: what Kubernetes fills in where a user said nothing.

Templates of controllers get all of them except those that only make sense for a pod (requests from limits, service
links), so that a template stays what was written.
"""

from __future__ import annotations

from typing import Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text
from fleetplane.model.objects import Object

GRACE_PERIOD: Final = 30
_FILE_MODE: Final = 0o644
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
CONTAINER_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


def default_pod(pod: Object) -> None:
    spec = made(pod, "spec")
    fill(spec, enableServiceLinks=True)
    default_pod_spec(spec)
    for key in ("initContainers", "containers"):
        for container in entries(spec, key):
            _requests_from_limits(container)
    if "resources" in spec:
        _requests_from_limits(spec)
    status = made(pod, "status")
    fill(status, phase="Pending")
    _match_addresses(status)


def _match_addresses(status: Object) -> None:
    """The one address and the list of addresses say the same, for clients that know only one of them."""
    first, addresses = text(status, "podIP"), entries(status, "podIPs")
    if first and (not addresses or addresses[0].get("ip") != first):
        status["podIPs"] = [{"ip": first}]
    elif addresses and not first and text(addresses[0], "ip"):
        status["podIP"] = addresses[0]["ip"]


def default_template(template: Object) -> None:
    """A ``PodTemplateSpec``."""
    default_pod_spec(made(template, "spec"))


def default_pod_spec(spec: Object) -> None:
    fill(
        spec,
        dnsPolicy="ClusterFirst",
        restartPolicy="Always",
        terminationGracePeriodSeconds=GRACE_PERIOD,
        schedulerName="default-scheduler",
    )
    fill(spec, securityContext={})
    account = text(spec, "serviceAccountName") or text(spec, "serviceAccount")
    if account:
        # the older of the two names is kept in step for clients that only know it
        fill(spec, serviceAccountName=account)
        spec["serviceAccount"] = spec["serviceAccountName"]
    for key in CONTAINER_LISTS:
        for container in entries(spec, key):
            default_container(container)
            if spec.get("hostNetwork") is True:
                for port in entries(container, "ports"):
                    if not port.get("hostPort"):
                        port["hostPort"] = port.get("containerPort", 0)
    for volume in entries(spec, "volumes"):
        default_volume(volume)


def default_container(container: Object) -> None:
    latest = image_tag(text(container, "image")) == "latest"
    fill(
        container,
        imagePullPolicy="Always" if latest else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    for port in entries(container, "ports"):
        fill(port, protocol="TCP")
    for variable in entries(container, "env"):
        source = section(variable, "valueFrom")
        if isinstance(source.get("fieldRef"), dict):
            fill(source["fieldRef"], apiVersion="v1")
        if isinstance(source.get("fileKeyRef"), dict):
            fill(source["fileKeyRef"], optional=False)
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            _default_probe(container[name])
    for hook in ("postStart", "preStop"):
        _default_http_get(section(container, "lifecycle", hook))


def image_tag(image: str) -> str:
    """The tag of an image reference, ``latest`` when it has neither tag nor digest."""
    name, _, digest = image.partition("@")
    _, colon, tag = name.rpartition("/")[2].partition(":")
    if colon:
        return tag
    return "" if digest else "latest"


def _default_probe(probe: Object) -> None:
    fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    _default_http_get(probe)
    if isinstance(probe.get("grpc"), dict):
        fill(probe["grpc"], service="")


def _default_http_get(handler: Object) -> None:
    if isinstance(handler.get("httpGet"), dict):
        fill(handler["httpGet"], path="/", scheme="HTTP")


def _requests_from_limits(holder: Object) -> None:
    """Requests that are not told are what the limits are."""
    limits = section(holder, "resources", "limits")
    if not limits:
        return
    requests = made(holder, "resources", "requests")
    for name, amount in limits.items():
        requests.setdefault(name, amount)


def default_volume(volume: Object) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if isinstance(volume.get(key), dict):
            fill(volume[key], defaultMode=_FILE_MODE)
    items = entries(section(volume, "downwardAPI"), "items")
    for source in entries(section(volume, "projected"), "sources"):
        items += entries(section(source, "downwardAPI"), "items")
        if isinstance(source.get("serviceAccountToken"), dict):
            fill(source["serviceAccountToken"], expirationSeconds=3600)
    for item in items:
        if isinstance(item.get("fieldRef"), dict):
            fill(item["fieldRef"], apiVersion="v1")
    if isinstance(volume.get("hostPath"), dict):
        fill(volume["hostPath"], type="")
    claim = section(volume, "ephemeral", "volumeClaimTemplate")
    if claim:
        fill(made(claim, "spec"), volumeMode="Filesystem")
    image = volume.get("image")
    if isinstance(image, dict):
        latest = image_tag(text(image, "reference")) == "latest"
        fill(image, pullPolicy="Always" if latest else "IfNotPresent")
    default_volume_source(volume)


def default_volume_source(volume: Object) -> None:
    """Defaults of the sources that pods and PersistentVolumes share."""
    if isinstance(volume.get("iscsi"), dict):
        fill(volume["iscsi"], iscsiInterface="default")
    if isinstance(volume.get("rbd"), dict):
        fill(volume["rbd"], pool="rbd", user="admin", keyring="/etc/ceph/keyring")
    if isinstance(volume.get("azureDisk"), dict):
        fill(volume["azureDisk"], cachingMode="ReadWrite", kind="Shared", fsType="ext4", readOnly=False)
    if isinstance(volume.get("scaleIO"), dict):
        fill(volume["scaleIO"], storageMode="ThinProvisioned", fsType="xfs")
