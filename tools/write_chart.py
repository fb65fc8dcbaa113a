"""Write what the chart knows of each operator, read off its declarations: kinds, rights, webhooks.

    python tools/write_chart.py

The templates beside choose from these files by the value ``operators``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fleetplane.client.http import HttpTransport
from fleetplane.client.kubeconfig import Access
from fleetplane.client.rest import RestClient
from fleetplane.controller import load_operators
from fleetplane.interfaces.cli.deployment import rules_of, webhooks_of
from fleetplane.model import yaml
from fleetplane.model.objects import Object
from fleetplane.operating import NAMESPACE

CHART = Path(__file__).parents[1] / "deploy" / "charts" / "fleetplane-operators"
MADE = "# Made by tools/write_chart.py; changes are lost.\n"


def files() -> dict[str, str]:
    """The text of each file, by its path below ``files`` of the chart."""
    client = RestClient(HttpTransport(Access("https://127.0.0.1")))
    made: dict[str, list[Object]] = {}
    for operator in load_operators():
        made[f"{operator.name}/crds.yaml"] = operator.manifests()
        made[f"{operator.name}/rules.yaml"] = rules_of(operator, client)
        by_kind = {one["kind"]: one["webhooks"] for one in webhooks_of([operator], NAMESPACE)}
        made[f"{operator.name}/mutating.yaml"] = by_kind.get("MutatingWebhookConfiguration", [])
        made[f"{operator.name}/validating.yaml"] = by_kind.get("ValidatingWebhookConfiguration", [])
    return {path: MADE + yaml.dump(objects) for path, objects in made.items()}


def main() -> None:
    folder = CHART / "files"
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


if __name__ == "__main__":
    main()
