"""``fleetplane completion``: the script that teaches a shell our words."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import plain_command


@plain_command(
    examples=(
        "fleetplane completion bash > ~/.local/share/bash-completion/completions/fleetplane",
        "fleetplane completion zsh > ~/.zfunc/_fleetplane",
        "fleetplane completion fish > ~/.config/fish/completions/fleetplane.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes words in a shell.

    Kinds, names, namespaces and contexts come from the server and the kubeconfig as you type.
    """
    from click.shell_completion import get_completion_class

    from fleetplane.interfaces.cli.main import app

    made = get_completion_class(shell)
    assert made is not None
    # Not .source(): for bash it asks the bash of this machine for its version, which need not be the one that reads it.
    instance = made(app, {}, "fleetplane", "_FLEETPLANE_COMPLETE")
    click.echo(instance.source_template % instance.source_vars())
