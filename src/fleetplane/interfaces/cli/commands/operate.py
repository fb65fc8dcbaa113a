"""``operators`` and ``manifests``: the operators on somebody's Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetplane.interfaces.cli.command import client_command, plain_command
from fleetplane.interfaces.cli.errors import CommandError

if TYPE_CHECKING:
    from fleetplane.controller.registration import Operator
    from fleetplane.controller.sharding import Shard
    from fleetplane.interfaces.cli.connection import Session


def _chosen(only: str | None) -> list[Operator]:
    from fleetplane.controller.registration import UnknownOperator
    from fleetplane.operating import chosen_operators

    try:
        found = chosen_operators(only or "all")
    except UnknownOperator as error:
        raise CommandError(str(error)) from None
    if not found:
        raise CommandError("there are no operators to run; install a package that has some, or name one with --only")
    return found


def _shard(text: str) -> Shard:
    from fleetplane.controller.sharding import Shard

    index, _, count = text.partition("/")
    try:
        return Shard(int(index), int(count))
    except ValueError:
        raise CommandError(f"--shard {text} is not INDEX/COUNT, as 0/3, 1/3 and 2/3 are") from None


@client_command(
    examples=(
        "fleetplane operators --kubeconfig ~/.kube/config --install",
        "fleetplane operators --only vehicles",
        "fleetplane operators --file greetings.py --install",
    )
)
@click.option("--only", help="Names of operators, separated by commas [default: all that are installed].")
@click.option(
    "--file", type=click.Path(path_type=Path), help="A Python file that defines operators, instead of installed ones."
)
@click.option("--install", is_flag=True, help="Apply the definitions of their kinds first.")
@click.option("--leader-elect", is_flag=True, help="Let one of several instances work at a time.")
@click.option("--shard", default="0/1", show_default=True, help="The part INDEX/COUNT of all objects to look after.")
@click.option("--health-port", type=int, help="Serve /healthz, /readyz and /metrics on this port.")
@click.option("--webhook-port", type=int, help="Serve what they refuse and fill in as webhooks on this port.")
@click.option(
    "--webhook-certs",
    type=click.Path(path_type=Path),
    help="Folder with tls.crt and tls.key for the webhooks [default: made and kept in a Secret].",
)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address of these ports.")  # noqa: S104 - see EVERYWHERE
@click.option("--account", default="fleetplane-operators", show_default=True, help="ServiceAccount they run as.")
async def operators(
    session: Session,
    only: str | None,
    file: Path | None,
    install: bool,
    leader_elect: bool,
    shard: str,
    health_port: int | None,
    webhook_port: int | None,
    webhook_certs: Path | None,
    host: str,
    account: str,
) -> None:
    """Run operators in the foreground against any Kubernetes.

    Stops cleanly on SIGTERM or Ctrl-C. Inside a pod its ServiceAccount is used; its namespace is where leases and the
    certificate of the webhooks are kept.
    """
    from fleetplane.interfaces.cli.logs import configure_logging
    from fleetplane.interfaces.cli.operator_file import operators_of_file
    from fleetplane.interfaces.cli.operators import Ways, run_operators
    from fleetplane.interfaces.cli.webhooks import Serving

    chosen = operators_of_file(file) if file is not None else _chosen(only)
    namespace = session.namespace
    webhooks = None
    if webhook_port is not None:
        webhooks = Serving(namespace, webhook_port, host, webhook_certs, account)
    ways = Ways(install, leader_elect, namespace, host, health_port, webhooks, _shard(shard))
    configure_logging("info")
    click.echo(f"running {', '.join(one.name for one in chosen)} against {session.access.server}", err=True)
    await run_operators(session.client, chosen, ways)


@plain_command(
    examples=(
        "fleetplane manifests | kubectl apply -f -",
        "fleetplane manifests --only vehicles > install.yaml",
        "fleetplane manifests --kustomize config",
    )
)
@click.option("--only", help="Names of operators, separated by commas [default: all that are installed].")
@click.option("--image", default="fleetplane:latest", show_default=True, help="Image of the Deployment.")
@click.option("--namespace", default="fleetplane-system", show_default=True, help="Where the operators run.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format.")
@click.option(
    "--kustomize",
    type=click.Path(path_type=Path),
    help="Write bases (crd, rbac, manager, ...) into this folder instead.",
)
def manifests(only: str | None, image: str, namespace: str, output: str, kustomize: Path | None) -> None:
    """Print what operators need to run on a Kubernetes.

    The definitions of their kinds, an account with the least rights that work, webhooks, and a Deployment.
    """
    import json

    from fleetplane.client.http import HttpTransport
    from fleetplane.client.kubeconfig import Access
    from fleetplane.client.rest import RestClient
    from fleetplane.interfaces.cli.deployment import parts_of
    from fleetplane.interfaces.cli.kustomize import write_bases
    from fleetplane.model import yaml as kube_yaml

    client = RestClient(HttpTransport(Access("https://127.0.0.1")))
    parts = parts_of(_chosen(only), client, image=image, namespace=namespace)
    if kustomize is not None:
        try:
            write_bases(parts, kustomize)
        except OSError as error:
            raise CommandError(f"cannot write {error.filename or kustomize}: {error.strerror}") from None
    elif output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(parts)}, indent=2))
    else:
        click.echo(kube_yaml.dump_all(parts), nl=False)
