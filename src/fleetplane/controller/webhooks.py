"""Admission plug-ins as HTTPS webhooks, for any Kubernetes that is not ours.

Every plug-in has a path of its own, ``/admit/<name>``; the webhook configurations that lead there are made from the same
declarations. The rules of a plug-in are checked again here: a configuration may be wider than what it serves.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import orjson
from aiohttp import web

from fleetplane.client.protocol import Client
from fleetplane.controller.reader import ClientReader
from fleetplane.model.admission import ALLOWED, AdmissionPlugin, decide
from fleetplane.model.admission_review import request_of, review_of
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, resource_of

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""An object of the API server's largest size, twice (old and new), and some room."""
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The label by which every namespace says its name (since Kubernetes 1.21)."""


def application(plugins: Iterable[AdmissionPlugin], client: Client) -> web.Application:
    """The web application that answers for the plug-ins."""
    by_name = {plugin.name: plugin for plugin in plugins}
    reader = ClientReader(client)

    async def admit(request: web.Request) -> web.Response:
        plugin = by_name.get(request.match_info["name"])
        if plugin is None:
            return web.json_response({"message": "there is no such admission plug-in"}, status=404)
        try:
            asked = request_of(orjson.loads(await request.read()))
        except (orjson.JSONDecodeError, AttributeError):
            return web.json_response({"message": "the body is not an AdmissionReview"}, status=400)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)
        concerns = plugin.matches(asked.operation, asked.resource, asked.subresource)
        decision = await decide(plugin, asked, reader) if concerns else ALLOWED
        return web.Response(body=orjson.dumps(review_of(asked, decision)), content_type="application/json")

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/admit/{name}", admit)
    return app


@asynccontextmanager
async def serving_webhooks(
    plugins: Iterable[AdmissionPlugin], client: Client, tls: ssl.SSLContext, host: str = "", port: int = 9443
) -> AsyncIterator[int]:
    """Serve while entered; gives the port."""
    runner = web.AppRunner(application(plugins, client), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def webhook_configurations(
    name: str,
    plugins: Iterable[AdmissionPlugin],
    client_config: Mapping[str, object],
    ca: bytes = b"",
    *,
    exempt: Sequence[str] = (),
) -> list[Object]:
    """The Mutating- and ValidatingWebhookConfiguration that send writes to the plug-ins.

    ``client_config`` says where they are served: ``{"service": {"name": …, "namespace": …}}`` or ``{"url": "https://…"}``.
    Without ``ca`` somebody else fills it in. In the namespaces ``exempt`` nobody is asked about core objects such as
    pods: whoever serves the webhooks must be able to start while they do not answer.
    """
    ordered = sorted(plugins, key=lambda plugin: (plugin.order, plugin.name))
    configurations = []
    for phase, kind in (("mutate", "MutatingWebhookConfiguration"), ("validate", "ValidatingWebhookConfiguration")):
        webhooks = [
            _webhook(plugin, client_config, ca, exempt)
            for plugin in ordered
            if plugin.phase == phase and plugin.elsewhere.served
        ]
        if webhooks:
            configurations.append(
                {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": kind,
                    "metadata": {"name": name},
                    "webhooks": webhooks,
                }
            )
    return configurations


def _webhook(plugin: AdmissionPlugin, client_config: Mapping[str, object], ca: bytes, exempt: Sequence[str]) -> Object:
    config: Object = {**client_config}
    if ca:
        config["caBundle"] = base64.b64encode(ca).decode()
    path = f"/admit/{plugin.name}"
    if "url" in config:
        config["url"] = str(config["url"]).rstrip("/") + path
    else:
        config["service"] = {**config["service"], "path": path}
    webhook: Object = {
        "name": plugin.name,
        "clientConfig": config,
        "rules": [_rule(rule.resources, rule.operations, rule.subresources) for rule in plugin.rules],
        "failurePolicy": plugin.failure_policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": max(1, min(30, round(plugin.timeout))),
        "matchPolicy": "Equivalent",
    }
    if plugin.phase == "mutate":
        webhook["reinvocationPolicy"] = "IfNeeded"
    core = any("" in rule["apiGroups"] or "*" in rule["apiGroups"] for rule in webhook["rules"])
    selector = _namespaces(plugin.elsewhere.namespaces or {}, exempt if core else ())
    if selector:
        webhook["namespaceSelector"] = selector
    return webhook


def _namespaces(wanted: Object, exempt: Sequence[str]) -> Object:
    if not exempt:
        return wanted
    others = {"key": _NAMESPACE_NAME, "operator": "NotIn", "values": list(exempt)}
    return {**wanted, "matchExpressions": [*wanted.get("matchExpressions", ()), others]}


def _rule(resources: Sequence[ResourceRef | str], operations: Sequence[str], subresources: Sequence[str]) -> Object:
    groups: dict[str, None] = {}
    plurals: dict[str, None] = {}
    for one in resources:
        if isinstance(one, str):
            plural, _, group = one.partition(".")
            group = "*" if plural == "*" else group
        else:
            kind = resource_of(one)
            plural, group = kind.plural, kind.group
        groups[group] = None
        for subresource in subresources:
            plurals[f"{plural}/{subresource}" if subresource else plural] = None
    return {
        "apiGroups": list(groups),
        "apiVersions": ["*"],
        "resources": list(plurals),
        "operations": list(operations),
        "scope": "*",
    }
