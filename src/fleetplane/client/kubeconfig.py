"""How to reach a server, as kubeconfig files and pods say it.

Parsing is pure and complete before anything is opened: what comes out is an ``Access``, all that a network transport
needs. Secrets stay in memory (inline data is never written to disk) and never appear in messages or ``repr``.

Merging follows kubectl: of several files in ``KUBECONFIG`` the first to define a name wins; relative paths are relative
to the file that names them. The legacy ``auth-provider`` stanza is refused: exec plug-ins replaced it (KEP-541).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The configuration cannot be used; the message says what to do."""


class ExecPlugin(NamedTuple):
    """A program that prints an ExecCredential (``client.authentication.k8s.io``)."""

    command: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    api_version: str
    provide_cluster_info: bool
    install_hint: str


@dataclass(frozen=True, slots=True)
class Access:
    """One server and one identity.

    ``server`` is an ``https://``, ``http://`` or ``unix:///path`` address. Certificates and keys are PEM; files that
    may rotate (``token_file``) are named, everything else is read at once.
    """

    server: str
    namespace: str = "default"
    ca: bytes | None = field(default=None, repr=False)
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    compress: bool = True
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    exec_plugin: ExecPlugin | None = None
    act_as: str = ""
    act_as_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One named entry of a kubeconfig and the directory its relative paths start from."""

    data: Mapping[str, Any]
    directory: Path


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Merged kubeconfig files."""

    current_context: str
    contexts: Mapping[str, Entry]
    clusters: Mapping[str, Entry]
    users: Mapping[str, Entry]

    def access(self, context: str | None = None) -> Access:
        """Resolve a context (the current one by default). Raises ConfigError."""
        name = context or self.current_context
        if not name:
            raise ConfigError("the kubeconfig has no current context; choose one with --context")
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise ConfigError(f"the kubeconfig has no context {name!r}; it has: {known}")
        chosen = self.contexts[name].data
        cluster = self._entry("cluster", self.clusters, str(chosen.get("cluster") or ""), name)
        user = self.users.get(str(chosen.get("user") or ""), Entry({}, Path()))
        return _access(cluster, user, str(chosen.get("namespace") or "default"))

    @staticmethod
    def _entry(what: str, entries: Mapping[str, Entry], name: str, context: str) -> Entry:
        if name not in entries:
            raise ConfigError(f"context {context!r} names the {what} {name!r}, which the kubeconfig does not define")
        return entries[name]


def load(paths: Sequence[Path] | None = None, *, environment: Mapping[str, str] | None = None) -> Kubeconfig:
    """Read and merge kubeconfig files: those given, else ``KUBECONFIG``, else ``~/.kube/config``.

    A file of a list that is absent is passed over, as kubectl does; raises ConfigError when none is there.
    """
    found = paths if paths is not None else default_paths(os.environ if environment is None else environment)
    present = [path for path in found if path.is_file()]
    if not present:
        raise ConfigError(
            f"there is no kubeconfig at {', '.join(str(path) for path in found)}; name one with --kubeconfig or in KUBECONFIG"
        )
    return merge([(parse(_read(path), str(path)), path.absolute().parent) for path in present])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = "it belongs to another user" if isinstance(error, PermissionError) else error.strerror
        raise ConfigError(f"cannot read the kubeconfig {path}: {why}") from None


def default_paths(environment: Mapping[str, str]) -> list[Path]:
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"]


def parse(text: bytes, source: str) -> Mapping[str, Any]:
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        what = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{source} is not YAML: {what}{where}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source} is not a kubeconfig: it should be a mapping")
    return data


def merge(files: Sequence[tuple[Mapping[str, Any], Path]]) -> Kubeconfig:
    contexts: dict[str, Entry] = {}
    clusters: dict[str, Entry] = {}
    users: dict[str, Entry] = {}
    current = ""
    for data, directory in files:
        current = current or str(data.get("current-context") or "")
        for into, plural, singular in (
            (contexts, "contexts", "context"),
            (clusters, "clusters", "cluster"),
            (users, "users", "user"),
        ):
            for one in data.get(plural) or []:
                into.setdefault(str(one.get("name") or ""), Entry(one.get(singular) or {}, directory))
    return Kubeconfig(current, contexts, clusters, users)


def in_cluster(environment: Mapping[str, str] | None = None, directory: Path = SERVICE_ACCOUNT_DIR) -> Access:
    """The access every pod is given: its ServiceAccount's token and the address of ``kubernetes.default``."""
    variables = os.environ if environment is None else environment
    host, port = variables.get("KUBERNETES_SERVICE_HOST"), variables.get("KUBERNETES_SERVICE_PORT")
    token_file = directory / "token"
    if not host or not port or not token_file.is_file():
        raise ConfigError("this does not run in a pod with a ServiceAccount; give a kubeconfig instead")
    ca_file, namespace_file = directory / "ca.crt", directory / "namespace"
    address = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{address}:{port}",
        namespace=namespace_file.read_text().strip() if namespace_file.is_file() else "default",
        ca=ca_file.read_bytes() if ca_file.is_file() else None,
        token_file=token_file,
    )


def find_access(kubeconfig: Path | None = None, context: str | None = None) -> Access:
    """What a tool should use: the kubeconfig it was told, else the default one, else the pod it runs in."""
    if kubeconfig is not None:
        return load([kubeconfig]).access(context)
    try:
        return load().access(context)
    except ConfigError:
        if context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return in_cluster()
        raise


def _access(cluster: Entry, user: Entry, namespace: str) -> Access:
    server = str(cluster.data.get("server") or "").rstrip("/")
    if not server.startswith(("https://", "http://", "unix://")):
        raise ConfigError(f"the server {server!r} of the kubeconfig is not an https://, http:// or unix:// address")
    if "auth-provider" in user.data:
        raise ConfigError("the kubeconfig uses an auth-provider, which is obsolete; replace it by an exec plug-in")
    token_file = user.data.get("tokenFile")
    return Access(
        server=server,
        namespace=namespace,
        ca=_material(cluster, "certificate-authority"),
        insecure=bool(cluster.data.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.data.get("tls-server-name") or ""),
        proxy_url=str(cluster.data.get("proxy-url") or ""),
        compress=not cluster.data.get("disable-compression"),
        certificate=_material(user, "client-certificate"),
        key=_material(user, "client-key"),
        token=str(user.data.get("token") or "") if not token_file else "",
        token_file=user.directory / token_file if token_file else None,
        username=str(user.data.get("username") or ""),
        password=str(user.data.get("password") or ""),
        exec_plugin=_exec_plugin(user),
        act_as=str(user.data.get("as") or ""),
        act_as_groups=tuple(str(group) for group in user.data.get("as-groups") or ()),
    )


def _material(entry: Entry, name: str) -> bytes | None:
    """PEM from ``<name>-data`` (base64, wins) or from the file ``<name>``."""
    if inline := entry.data.get(f"{name}-data"):
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error:
            raise ConfigError(f"{name}-data of the kubeconfig is not base64") from None
    if not (path := entry.data.get(name)):
        return None
    try:
        return (entry.directory / str(path)).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} of the kubeconfig cannot be read: {error}") from None


def _exec_plugin(user: Entry) -> ExecPlugin | None:
    if not (found := user.data.get("exec")):
        return None
    command = str(found.get("command") or "")
    if "/" in command:  # a path is relative to the kubeconfig, a bare name is looked up in PATH
        command = str(user.directory / command)
    return ExecPlugin(
        command=command,
        arguments=tuple(str(argument) for argument in found.get("args") or ()),
        environment=tuple((str(one["name"]), str(one["value"])) for one in found.get("env") or ()),
        api_version=str(found.get("apiVersion") or "client.authentication.k8s.io/v1"),
        provide_cluster_info=bool(found.get("provideClusterInfo")),
        install_hint=str(found.get("installHint") or ""),
    )
