"""Who a container runs as and what it may do: pod and container ``securityContext`` as one. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from fleetplane.node.building import ConfigFailure
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.runtime import Image, Security


def container_security(pod: PodView, container: ContainerView, image: Image, seccomp_directory: str) -> Security:
    """The container's own settings over the pod's. Raises ConfigFailure in the kubelet's words."""
    outer: Mapping[str, Any] = pod.spec.get("securityContext") or {}
    own: Mapping[str, Any] = container.spec.get("securityContext") or {}
    user = _number(own, outer, "runAsUser")
    _check_not_root(pod, container, own, outer, user, image)
    capabilities = own.get("capabilities") or {}
    privileged = bool(own.get("privileged"))
    groups = [int(group) for group in outer.get("supplementalGroups") or []]
    if outer.get("fsGroup") is not None:
        groups.append(int(outer["fsGroup"]))
    user_name = ""
    group = _number(own, outer, "runAsGroup")
    if user is None and group is not None:
        user_name = image.user.partition(":")[0] or "0"
    return Security(
        user=user,
        user_name=user_name,
        group=group,
        supplemental_groups=tuple(dict.fromkeys(groups)),
        privileged=privileged,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        add_capabilities=tuple(_capability(name) for name in capabilities.get("add") or []),
        drop_capabilities=tuple(_capability(name) for name in capabilities.get("drop") or []),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        seccomp=_seccomp(own.get("seccompProfile") or outer.get("seccompProfile") or {}, seccomp_directory),
        apparmor=_apparmor(own.get("appArmorProfile") or outer.get("appArmorProfile") or {}),
        selinux=_selinux(own.get("seLinuxOptions") or outer.get("seLinuxOptions") or {}),
        unmasked_proc=own.get("procMount") == "Unmasked",
    )


def _number(own: Mapping[str, Any], outer: Mapping[str, Any], key: str) -> int | None:
    found = own.get(key) if own.get(key) is not None else outer.get(key)
    return None if found is None else int(found)


def _check_not_root(
    pod: PodView,
    container: ContainerView,
    own: Mapping[str, Any],
    outer: Mapping[str, Any],
    user: int | None,
    image: Image,
) -> None:
    wanted = own.get("runAsNonRoot") if own.get("runAsNonRoot") is not None else outer.get("runAsNonRoot")
    if not wanted:
        return
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.uid})", container: {container.name})'
    if user == 0:
        raise ConfigFailure(f"container's runAsUser breaks non-root policy {where}")
    if user is not None:
        return
    name = image.user.partition(":")[0]
    if name in {"", "0", "root"}:
        raise ConfigFailure(f"container has runAsNonRoot and image will run as root {where}")
    if not name.isdecimal():
        raise ConfigFailure(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {where}"
        )


def _capability(name: Any) -> str:
    text = str(name).upper()
    return text if text == "ALL" else text if text.startswith("CAP_") else f"CAP_{text}"


def _seccomp(profile: Mapping[str, Any], directory: str) -> str:
    match profile.get("type"):
        case "Unconfined":
            return "unconfined"
        case "Localhost":
            name = str(profile.get("localhostProfile") or "")
            if not name or ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise ConfigFailure(f"seccomp profile {name!r} must be a path below the node's seccomp directory")
            return f"{directory}/{name}"
    return ""


def _apparmor(profile: Mapping[str, Any]) -> str:
    match profile.get("type"):
        case "Unconfined":
            return "unconfined"
        case "Localhost":
            return str(profile.get("localhostProfile") or "")
    return ""


def _selinux(options: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(options[key]) for key in ("user", "role", "type", "level") if options.get(key)}
