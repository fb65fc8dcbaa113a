"""The parts of a deployment as bases of kustomize, one file per object: ``crd``, ``rbac``, ``manager`` and so on.

Only files that are made here are replaced or removed; every one of them says so in its first line. What people add
beside them, such as overlays and samples, stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fleetplane.interfaces.cli.deployment import Parts
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.objects import Object

MADE: Final = "# Made by `fleetplane manifests --kustomize`; changes are lost.\n"
_BASES: Final = ("crd", "rbac", "manager", "webhook")


def bases(parts: Parts) -> dict[str, str]:
    """The text of each file, by its path below the folder."""
    files: dict[str, str] = {}
    by_base = {
        "crd": {f"bases/{one['metadata']['name']}.yaml": one for one in parts.crd},
        "rbac": {f"{_file_name(one)}.yaml": one for one in parts.rbac},
        "manager": {f"{_file_name(one)}.yaml": one for one in (*parts.namespace, *parts.manager)},
        "webhook": {f"{_file_name(one)}.yaml": one for one in parts.webhook},
    }
    for base in _BASES:
        files |= {f"{base}/{path}": MADE + kube_yaml.dump(one) for path, one in by_base[base].items()}
        files[f"{base}/kustomization.yaml"] = _kustomization(by_base[base], _image(parts) if base == "manager" else {})
    files["default/kustomization.yaml"] = _kustomization([f"../{base}" for base in _BASES])
    return files


def write_bases(parts: Parts, folder: Path) -> None:
    """Raises OSError."""
    wanted = bases(parts)
    for base in (*_BASES, "default"):
        for file in sorted((folder / base).rglob("*.yaml")):
            if str(file.relative_to(folder)) not in wanted and file.read_text().startswith(MADE):
                file.unlink()
    for path, text in wanted.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def _kustomization(resources: Iterable[str], more: Mapping[str, object] = {}) -> str:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(resources),
        **more,
    }
    return MADE + kube_yaml.dump(content)


def _image(parts: Parts) -> Object:
    """So that an overlay, or ``kustomize edit set image``, needs to know one name only."""
    deployment = parts.manager[-1]
    image = str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
    name, tag = _split(image)
    return {"images": [{"name": image if not tag else name, "newName": name} | ({"newTag": tag} if tag else {})]}


def _split(image: str) -> tuple[str, str]:
    """Name and tag: ``host:5000/a:1`` is ``host:5000/a`` and ``1``."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "")


def _file_name(obj: Object) -> str:
    """``RoleBinding`` becomes ``role_binding``."""
    kind = str(obj["kind"])
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind).lstrip("_")
