"""``logicalclusters/credentials``: a client certificate for a logical cluster, for whoever may have one.

Who may create the subresource in root becomes, for as long as the certificate lives, an administrator of that one
cluster: no role or binding has to exist inside it. The requester keeps its private key; we
see a signing request, take only its key, and fill in the cluster ourselves. The answer comes when the cluster is open, so
whoever holds it need not wait for anything else. A name used again brings no old certificate
back to life, because the certificate carries the cluster's uid.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives import serialization

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.certificate_requests import BadRequest, read_request
from fleetplane.apiserver.certificates import LEAF_LIFETIME, Subject, issue
from fleetplane.apiserver.decoding import decode_object, part
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.pki import Pki
from fleetplane.apiserver.reader import ObjectReader
from fleetplane.apiserver.subresources import Handler
from fleetplane.model import errors
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object, is_deleting, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import MASTERS_GROUP

KIND: Final = "ClusterCredentials"
ADMINISTRATOR: Final = "kubernetes-admin"
MIN_SECONDS: Final = 600


def credentials_handler(
    resource: ResourceType,
    pki: Pki,
    reader: ObjectReader,
    environment: Environment,
    opened: Callable[[Object], Awaitable[None]],
) -> Handler:
    """Answers POST with ``spec.request`` (base64 of a PEM PKCS#10 request) and optional ``spec.expirationSeconds``.

    ``opened`` returns when a cluster can be used.
    ``status`` has ``certificate`` and ``authority`` (base64 of PEM) and ``expirationTimestamp``. Errors: 404, 405, 422, 503.
    """

    async def answer(call: Call) -> Response:
        if call.target.verb != "create":
            raise errors.method_not_allowed()
        name = call.target.name
        found = await reader.get(call.key_cluster, resource, "", name)
        if found is None or is_deleting(found):
            raise errors.not_found(resource.plural, name, group=resource.group)
        wanted, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        spec = part(wanted, "spec")
        seconds = _seconds(spec, name)
        try:
            asked = read_request(spec)
        except BadRequest as error:
            cause = errors.FieldError.invalid("spec.request", "<bytes>", str(error))
            raise errors.invalid(KIND, name, [cause], group=resource.group) from None
        await opened(found)
        subject = Subject(ADMINISTRATOR, (MASTERS_GROUP,), cluster=uid(found))
        certificate = issue(pki.authority, subject, asked.key, environment, lifetime=timedelta(seconds=seconds))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        body: Object = {
            "apiVersion": resource.api_version,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {"expirationSeconds": seconds},
            "status": {
                "certificate": base64.b64encode(pem).decode(),
                "authority": base64.b64encode(pki.authority_pem).decode(),
                "expirationTimestamp": timestamp(certificate.not_valid_after_utc),
            },
        }
        return Response(201, orjson.dumps(body))

    return answer


def _seconds(spec: Any, name: str) -> int:
    longest = int(LEAF_LIFETIME.total_seconds())
    seconds = spec.get("expirationSeconds", longest)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < MIN_SECONDS:
        cause = errors.FieldError.invalid(
            "spec.expirationSeconds", seconds, f"must be a number of at least {MIN_SECONDS} seconds"
        )
        raise errors.invalid(KIND, name, [cause], group="fleetplane.io")
    return min(seconds, longest)
