"""``operators`` and ``manifests``: the operators on somebody's Kubernetes."""

from __future__ import annotations

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
    examples=("fleetplane operators --kubeconfig ~/.kube/config --install", "fleetplane operators --only vehicles")
)
@click.option("--only", help="Names of operators, separated by commas [default: all that are installed].")
@click.option("--install", is_flag=True, help="Apply the definitions of their kinds first.")
@click.option("--leader-elect", is_flag=True, help="Let one of several instances work at a time.")
@click.option("--shard", default="0/1", show_default=True, help="The part INDEX/COUNT of all objects to look after.")
@click.option("--health-port", type=int, help="Serve /healthz, /readyz and /metrics on this port.")
async def operators(
    session: Session, only: str | None, install: bool, leader_elect: bool, shard: str, health_port: int | None
) -> None:
    """Run operators in the foreground against any Kubernetes.

    Stops cleanly on SIGTERM or Ctrl-C.
    """
    from fleetplane.interfaces.cli.logs import configure_logging
    from fleetplane.interfaces.cli.operators import run_operators

    chosen, part = _chosen(only), _shard(shard)
    configure_logging("info")
    click.echo(f"running {', '.join(one.name for one in chosen)} against {session.access.server}", err=True)
    await run_operators(
        session.client, chosen, install=install, elect=leader_elect, health_port=health_port, shard=part
    )


@plain_command(
    examples=("fleetplane manifests | kubectl apply -f -", "fleetplane manifests --only vehicles > install.yaml")
)
@click.option("--only", help="Names of operators, separated by commas [default: all that are installed].")
@click.option("--image", default="fleetplane:latest", show_default=True, help="Image of the Deployment.")
@click.option("--namespace", default="fleetplane-system", show_default=True, help="Where the operators run.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format.")
def manifests(only: str | None, image: str, namespace: str, output: str) -> None:
    """Print what operators need to run on a Kubernetes.

    The definitions of their kinds, an account with the least rights that work, and a Deployment.
    """
    import json

    from fleetplane.client.http import HttpTransport
    from fleetplane.client.kubeconfig import Access
    from fleetplane.client.rest import RestClient
    from fleetplane.interfaces.cli.operators import operator_manifests
    from fleetplane.model import yaml as kube_yaml

    client = RestClient(HttpTransport(Access("https://127.0.0.1")))
    made = operator_manifests(_chosen(only), client, image=image, namespace=namespace)
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2))
    else:
        click.echo(kube_yaml.dump_all(made), nl=False)
