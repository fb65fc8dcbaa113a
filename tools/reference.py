"""The reference of the documentation, made of the kinds and commands themselves; a hook of mkdocs, so it is never old.

``pages()`` is all of it: path below ``docs/`` to Markdown. mkdocs calls ``on_files`` while it builds the site (``mkdocs.yml``);
``python tools/reference.py FOLDER`` writes the pages for reading without it.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from fleetplane.controller.registration import load_operators
from fleetplane.interfaces.cli.main import SECTIONS, app
from fleetplane.model.kind import FieldDoc, Kind, Versions, crd_manifest, docs_of

FOLDER = "reference"


def pages() -> dict[str, str]:
    made = {f"{FOLDER}/commands.md": commands_page()}
    groups: dict[str, list[tuple[str, Any]]] = {}
    for operator in load_operators():
        for kind in operator.kinds:
            groups.setdefault(crd_manifest(kind)["spec"]["group"], []).append((operator.name, kind))
    for group, kinds in sorted(groups.items()):
        made[f"{FOLDER}/{group}.md"] = group_page(group, kinds)
    made[f"{FOLDER}/index.md"] = index_page(groups)
    return made


# -- kinds


def index_page(groups: Mapping[str, list[tuple[str, Any]]]) -> str:
    lines = ["# Reference", "", "Made from the kinds and commands themselves when this site is built.", ""]
    lines += ["- [Commands](commands.md): everything `fleetplane` can be told."]
    for group, kinds in sorted(groups.items()):
        names = ", ".join(f"`{crd_manifest(kind)['spec']['names']['kind']}`" for _, kind in kinds)
        lines.append(f"- [{group}]({group}.md) (operator `{kinds[0][0]}`): {names}.")
    return "\n".join([*lines, ""])


def group_page(group: str, kinds: list[tuple[str, Any]]) -> str:
    lines = [
        f"# {group}",
        "",
        f"Kinds of the operator `{kinds[0][0]}`. `fleetplane explain <kind>` says the same in a terminal.",
        "",
    ]
    for _, declared in kinds:
        manifest = crd_manifest(declared)["spec"]
        for kind in versions_of(declared):
            lines += kind_section(kind, manifest)
    return "\n".join(lines)


def versions_of(declared: Any) -> list[type[Kind]]:
    """The classes of a kind; those served under several versions have one each."""
    if isinstance(declared, Versions):
        return list(declared.kinds)
    return [declared]


def kind_section(kind: type[Kind], manifest: Mapping[str, Any]) -> Iterator[str]:
    names = manifest["names"]
    yield f"## {names['kind']}"
    yield ""
    yield cell(inspect.getdoc(kind) or "")
    yield ""
    short = [*names.get("shortNames", ()), *names.get("categories", ())]
    also = f", also {', '.join(f'`{one}`' for one in short)}" if short else ""
    scope = "in a namespace" if manifest["scope"] == "Namespaced" else "cluster-wide"
    yield f"`apiVersion: {kind.resource.api_version}`, `{names['plural']}`{also}; {scope}."
    yield ""
    yield "| field | type | default | what it is |"
    yield "| --- | --- | --- | --- |"
    for one in docs_of(kind):
        yield f"| `{one.path}`{' *' if one.required else ''} | {one.type} | {default(one)} | {about(one)} |"
    yield ""
    yield "Fields marked * are required."
    yield ""


def default(one: FieldDoc) -> str:
    if one.default is None or one.default == {}:
        return ""
    return f"`{cell(json.dumps(one.default))}`"


def about(one: FieldDoc) -> str:
    limits = "; ".join(f"`{limit}`" if limit.startswith("matches") else limit for limit in one.limits)
    return cell(" ".join(part for part in (one.doc, f"({limits})" if limits else "") if part))


def cell(text: str) -> str:
    """Text that cannot break out of a table's cell, nor into HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# -- commands


def commands_page() -> str:
    lines = ["# Commands", "", "`fleetplane COMMAND --help` says the same.", ""]
    root = click.Context(app, info_name="fleetplane")
    for title, entries in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in entries:
            command = app.get_command(root, name)
            assert command is not None, name
            lines += command_section(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(lines)


def command_section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"### {context.command_path}"
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```"
    yield ""
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | what it does |"
        yield "| --- | --- |"
        for one in options:
            shown = one.get_help_record(context)
            if shown is not None:
                yield f"| `{cell(shown[0])}` | {cell(shown[1])} |"
        yield ""
    examples = getattr(command, "examples", ())
    if examples:
        yield "```text"
        yield from examples
        yield "```"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from command_section(inner, click.Context(inner, info_name=name, parent=context))


# -- mkdocs


def on_config(config: Any) -> Any:
    """Put the pages into the navigation."""
    titles = {"index.md": "Overview", "commands.md": "Commands"}
    listed = sorted(pages(), key=lambda path: (Path(path).name not in titles, Path(path).name != "index.md", path))
    entries = [{titles.get(Path(path).name, Path(path).stem): path} for path in listed]
    config.nav = [*(config.nav or []), {"Reference": entries}]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File  # noqa: PLC0415 - only mkdocs calls this

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


if __name__ == "__main__":
    for path, text in pages().items():
        target = Path(sys.argv[1]) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
