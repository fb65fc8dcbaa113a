"""The Secrets of a cluster of pods: its kubeconfig, and the first user's password where nobody gave one."""

from __future__ import annotations

import base64

from fleetplane.controller import Context
from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.environment import SAFE_ALPHABET
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.operators.vclusters.credentials import KEY, secret_name
from fleetplane.operators.vclusters.kinds import Vk8s
from fleetplane.operators.vclusters.steps import StepFailed


async def kubeflow_password(context: Context[Vk8s], vcluster: Vk8s) -> str:
    """The first user's: as given, from a Secret, or generated into one. Raises StepFailed where the Secret has none."""
    kubeflow = vcluster.spec.kubeflow
    if kubeflow is not None and kubeflow.password:
        return kubeflow.password
    given = kubeflow.password_secret if kubeflow is not None else ""
    named = given or f"{vcluster.name}-kubeflow"
    try:
        found = await context.client.get(SECRETS, named, vcluster.namespace)
        return base64.b64decode(found["data"]["password"]).decode()
    except (KeyError, ValueError):
        raise StepFailed(f"Secret {named} has no text under the key password", permanent=True) from None
    except ApiError as error:
        if error.code != 404 or given:
            raise
    made = "".join(context.manager.environment.random.choices(SAFE_ALPHABET, k=24))
    secret = _secret(context, vcluster, named) | {"stringData": {"password": made}}
    await context.client.create(SECRETS, secret)
    return made


async def save_kubeconfig(context: Context[Vk8s], vcluster: Vk8s, text: str) -> None:
    """Write it into ``<name>-kubeconfig``. Raises StepFailed where somebody else has a Secret of that name."""
    named = secret_name(vcluster.name)
    secret = _secret(context, vcluster, named) | {
        "type": "cluster.x-k8s.io/secret",
        "data": {KEY: base64.b64encode(text.encode()).decode()},
    }
    try:
        found = await context.client.get(SECRETS, named, vcluster.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
    else:
        owners = {one.get("uid") for one in metadata(found).get("ownerReferences") or ()}
        if vcluster.uid not in owners:
            raise StepFailed(f"Secret {named} belongs to somebody else; rename the cluster", permanent=True)
    await context.client.apply(SECRETS, secret, field_manager="vclusters")


def _secret(context: Context[Vk8s], vcluster: Vk8s, name: str) -> Object:
    meta = {"name": name, "namespace": vcluster.namespace, "ownerReferences": [context.owner.reference()]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta}
