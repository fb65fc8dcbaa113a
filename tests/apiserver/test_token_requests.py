"""A token is bound to what its request names, though the request comes on a ServiceAccount's path."""

from __future__ import annotations

import base64
import json

from fleetplane.model.builtin.types import PODS, SERVICE_ACCOUNTS
from fleetplane.testing.plane import TestServer

TOKEN = "/api/v1/namespaces/default/serviceaccounts/bot/token"


async def test_a_token_is_bound_to_its_pod(api: TestServer) -> None:
    client = api.client()
    await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "bot"}}, "default")
    spec = {"serviceAccountName": "bot", "containers": [{"name": "main", "image": "x"}]}
    pod = await client.create(PODS, {"metadata": {"name": "web"}, "spec": spec}, "default")
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": pod["metadata"]["uid"]}

    code, made = await api.call("POST", TOKEN, {"spec": {"boundObjectRef": bound}})

    assert code == 201, made
    payload = made["status"]["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["kubernetes.io"]["pod"] == {"name": "web", "uid": pod["metadata"]["uid"]}


async def test_a_request_of_wrong_types_is_refused(api: TestServer) -> None:
    await api.client().create(SERVICE_ACCOUNTS, {"metadata": {"name": "bot"}}, "default")

    code, status = await api.call("POST", TOKEN, {"spec": {"boundObjectRef": "web"}})

    assert (code, status["message"]) == (400, "spec.boundObjectRef of a TokenRequest has the wrong type")
