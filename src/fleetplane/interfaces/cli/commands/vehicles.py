"""``fleetplane vehicles``: vehicle applications without a plane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fleetplane.interfaces.cli.command import Group, files_options, plain_command
from fleetplane.interfaces.cli.errors import CommandError, UsageError

_file = click.Path(path_type=Path)
_digest = click.option("--digest", default="", help="What the package's digest must be.")
_keys = click.option(
    "--key", "keys", type=_file, multiple=True, help="A public key (PEM) that must have signed it; one of several."
)


@plain_command(
    group="vehicles",
    examples=(
        "fleetplane vehicles render -f camera.yaml | kubectl apply -f -",
        "fleetplane vehicles render -f app/ --format podman | podman kube play -",
        "fleetplane vehicles render -f app/ --format quadlet --into /etc/containers/systemd",
    ),
)
@files_options("Manifests of the applications and of all they name: files, folders, addresses, - for standard input.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["kubernetes", "podman", "quadlet"]),
    default="kubernetes",
    show_default=True,
    help="For a Kubernetes without the operator, for podman kube play, or units of systemd.",
)
@click.option("--into", type=click.Path(path_type=Path), help="Write files into this folder instead of printing.")
def render(filenames: tuple[str, ...], recursive: bool, form: str, into: Path | None) -> None:
    """Print as plain manifests what vehicle manifests make run.

    Nothing is asked of a server: whatever the applications name (DevRes, VehContainerConfig, AppType) must be among the
    files. What the target cannot do is told on stderr.
    """
    from fleetplane.interfaces.cli.manifests import read_all
    from fleetplane.operators.vehicles.render import RenderError
    from fleetplane.operators.vehicles.render import render as rendered

    if not filenames:
        raise UsageError("say what to render: -f FILE or -f FOLDER")
    if form == "quadlet" and into is None:
        raise UsageError("units are files: say where they go with --into FOLDER")
    try:
        files, notes = rendered([one.object for one in read_all(filenames, recursive)], form)
    except RenderError as error:
        raise CommandError(str(error)) from None
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if into is None:
        click.echo("---\n".join(files.values()), nl=False)
        return
    try:
        into.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (into / name).write_text(text)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or into}: {error.strerror}") from None
    for name in files:
        click.echo(str(into / name))


@plain_command(
    group="vehicles",
    examples=(
        "fleetplane vehicles pack cockpit.yaml --image signals.tar -o cockpit.tar",
        "fleetplane vehicles pack cockpit.yaml --image signals.tar --sign key.pem -o cockpit.tar",
        "fleetplane vehicles pack cockpit.yaml --no-images --sign key.pem -o cockpit-signed.yaml",
    ),
)
@click.argument("manifests", type=_file)
@click.option("--image", "images", type=_file, multiple=True, help="An OCI archive, as podman save makes it.")
@click.option("--no-images", is_flag=True, help="Write the manifests alone, with digests and signatures.")
@click.option("--sign", type=_file, help="Sign with this private key (PEM; Ed25519 or ECDSA P-256).")
@click.option("-o", "--output", type=_file, required=True, metavar="FILE", help="What to write.")
def pack(manifests: Path, images: tuple[Path, ...], no_images: bool, sign: Path | None, output: Path) -> None:
    """Make one file of an application: its manifests and images, each by its digest.

    The same parts make the same file. Prints the digest of the package, and the images in it.
    """
    from fleetplane.operators.vehicles.package import do_pack

    with _one_sentence():
        lines = do_pack(manifests, images, output, sign, no_images)
    _print(lines)


@plain_command(
    group="vehicles",
    examples=(
        "fleetplane vehicles verify cockpit.tar",
        "fleetplane vehicles verify cockpit.tar --key public.pem --digest sha256:...",
    ),
)
@click.argument("package", type=_file)
@_digest
@_keys
def verify(package: Path, digest: str, keys: tuple[Path, ...]) -> None:
    """Check all of a package: every blob by its digest, and who signed it."""
    from fleetplane.operators.vehicles.package import do_verify

    with _one_sentence():
        lines = do_verify(package, digest, keys, None)
    _print(lines)


@plain_command(group="vehicles", examples=("fleetplane vehicles unpack cockpit.tar --key public.pem --into cockpit",))
@click.argument("package", type=_file)
@click.option("--into", type=_file, required=True, metavar="FOLDER", help="Where manifests and images go.")
@_digest
@_keys
def unpack(package: Path, into: Path, digest: str, keys: tuple[Path, ...]) -> None:
    """Check a package, then write its manifests and its images."""
    from fleetplane.operators.vehicles.package import do_verify

    with _one_sentence():
        lines = do_verify(package, digest, keys, into)
    _print(lines)


@contextmanager
def _one_sentence() -> Iterator[None]:
    from fleetplane.model.yaml import YamlError
    from fleetplane.operators.vehicles.package import PackageError
    from fleetplane.operators.vehicles.package_signing import SigningError

    try:
        yield
    except (PackageError, SigningError, YamlError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"cannot use {error.filename}: {error.strerror}") from None


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)


vehicles = Group("vehicles", "Render and package vehicle applications.", [render, pack, verify, unpack])
