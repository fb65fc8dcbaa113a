"""The kubeconfig of a virtual cluster: a key made here, a certificate from the host, written into a Secret.

The Secret follows Cluster API's convention: ``<name>-kubeconfig`` with the file under the key ``value``. It is usable
as it stands: address, authority, certificate and key are inside.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetplane.model import yaml as kube_yaml
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.operators.vclusters.kinds import GROUP, ROTATE

CREDENTIALS_LABEL: Final = f"{GROUP}/credentials"
CLUSTER_UID: Final = f"{GROUP}/cluster-uid"
EXPIRES: Final = f"{GROUP}/expires"
ISSUED: Final = f"{GROUP}/issued"
ENDPOINT: Final = f"{GROUP}/endpoint"
KEY: Final = "value"


class Request(NamedTuple):
    """A private key (PEM) and the signing request for it (base64 of PEM)."""

    key_pem: bytes
    request: str


def secret_name(cluster: str) -> str:
    return f"{cluster}-kubeconfig"


def new_request() -> Request:
    """A P-256 key and a request that proves we hold it. The host fills in every name itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vk8s")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Request(pem, base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode())


def kubeconfig(cluster: str, endpoint: str, status: Mapping[str, Any], key_pem: bytes) -> bytes:
    """The file. ``status`` is what the host answered; ``endpoint`` is https://host:port/clusters/<name>."""
    user = f"{cluster}-admin"
    return kube_yaml.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {"server": endpoint, "certificate-authority-data": status["authority"]},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": status["certificate"],
                        "client-key-data": base64.b64encode(key_pem).decode(),
                    },
                }
            ],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "current-context": cluster,
        }
    ).encode()


def secret(name: str, file: bytes, marks: Mapping[str, str]) -> Object:
    """The Secret; ``marks`` are the annotations from which ``is_good`` later tells whether it still serves."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(name),
            "labels": {CREDENTIALS_LABEL: "true", "cluster.x-k8s.io/cluster-name": name[:63].rstrip("-.")},
            "annotations": dict(marks),
        },
        "type": "cluster.x-k8s.io/secret",
        "data": {KEY: base64.b64encode(file).decode()},
    }


def marks(cluster_uid: str, endpoint: str, issued: str, expires: str, nonce: str) -> dict[str, str]:
    return {CLUSTER_UID: cluster_uid, ENDPOINT: endpoint, ISSUED: issued, EXPIRES: expires, ROTATE: nonce}


def renewal(found: Mapping[str, Any]) -> datetime | None:
    """When credentials should be replaced: after two thirds of their life. None when they do not say."""
    known = annotations_of(found)
    try:
        issued, expires = parse_timestamp(known[ISSUED]), parse_timestamp(known[EXPIRES])
    except (KeyError, ValueError):
        return None
    return issued + timedelta(seconds=(expires - issued).total_seconds() * 2 / 3)


def is_good(found: Mapping[str, Any], cluster_uid: str, endpoint: str, nonce: str, now: datetime) -> bool:
    """Whether a Secret still serves: of this very cluster, at this address, young enough, not asked to be replaced."""
    known = annotations_of(found)
    due = renewal(found)
    return (
        known.get(CLUSTER_UID) == cluster_uid
        and known.get(ENDPOINT) == endpoint
        and known.get(ROTATE, "") == nonce
        and due is not None
        and now < due
        and KEY in (found.get("data") or {})
    )
