"""What a pod is called and how it finds others: host name, ``/etc/hosts`` and ``resolv.conf``. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetplane.node.pod import PodView
from fleetplane.node.runtime import DnsConfig

LONGEST_NAME = 63
MOST_SEARCHES = 32


@dataclass(frozen=True, slots=True)
class ClusterNames:
    """How names work on this node. Without ``servers`` there is no cluster DNS, and pods use the host's."""

    domain: str = "cluster.local"
    servers: tuple[str, ...] = ()
    host: DnsConfig = field(default_factory=DnsConfig)


def host_name(pod: PodView) -> str:
    """The pod's host name: its own choice or its name, cut to 63 letters."""
    chosen = str(pod.spec.get("hostname") or pod.name)[:LONGEST_NAME].rstrip("-.")
    if pod.spec.get("setHostnameAsFQDN") and (full := full_name(pod, "cluster.local")):
        return full[:64]
    return chosen


def full_name(pod: PodView, domain: str) -> str:
    """The pod's name in its subdomain, or nothing without one."""
    subdomain = pod.spec.get("subdomain")
    if not subdomain:
        return ""
    chosen = str(pod.spec.get("hostname") or pod.name)[:LONGEST_NAME].rstrip("-.")
    return f"{chosen}.{subdomain}.{pod.namespace}.svc.{domain}"


def hosts_file(pod: PodView, addresses: Sequence[str], domain: str) -> str:
    """``/etc/hosts`` of a pod with a network of its own."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    names = "\t".join(name for name in (full_name(pod, domain), host_name(pod)) if name)
    lines += [f"{address}\t{names}" for address in addresses]
    return "\n".join(lines) + "\n" + _aliases(pod)


def host_hosts_file(pod: PodView, host: str) -> str:
    """``/etc/hosts`` of a pod in the host's network: the host's, with the pod's aliases."""
    return "# Kubernetes-managed hosts file (host network).\n" + host.rstrip("\n") + "\n" + _aliases(pod)


def _aliases(pod: PodView) -> str:
    aliases = pod.spec.get("hostAliases") or []
    if not aliases:
        return ""
    lines = ["", "# Entries added by HostAliases."]
    for alias in aliases:
        names = "\t".join(str(name) for name in alias.get("hostnames") or [])
        lines.append(f"{alias.get('ip')}\t{names}")
    return "\n".join(lines) + "\n"


def pod_dns(pod: PodView, cluster: ClusterNames) -> DnsConfig:
    """The pod's resolver configuration by its ``dnsPolicy``, with its ``dnsConfig`` merged in."""
    policy = str(pod.spec.get("dnsPolicy") or "ClusterFirst")
    if policy == "ClusterFirst" and pod.host_network:
        policy = "Default"
    if policy in {"ClusterFirst", "ClusterFirstWithHostNet"} and cluster.servers:
        base = DnsConfig(
            cluster.servers,
            (
                f"{pod.namespace}.svc.{cluster.domain}",
                f"svc.{cluster.domain}",
                cluster.domain,
                *cluster.host.searches,
            ),
            ("ndots:5",),
        )
    elif policy == "None":
        base = DnsConfig()
    else:
        base = cluster.host
    return _merged(base, pod)


def _merged(base: DnsConfig, pod: PodView) -> DnsConfig:
    own = pod.spec.get("dnsConfig") or {}
    options = {option.partition(":")[0]: option for option in base.options}
    for option in own.get("options") or []:
        name, value = str(option.get("name")), option.get("value")
        options[name] = f"{name}:{value}" if value else name
    return DnsConfig(
        tuple(dict.fromkeys([*base.servers, *(str(s) for s in own.get("nameservers") or [])])),
        tuple(dict.fromkeys([*base.searches, *(str(s) for s in own.get("searches") or [])]))[:MOST_SEARCHES],
        tuple(options.values()),
    )


def resolv_conf(dns: DnsConfig) -> str:
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.insert(0, "search " + " ".join(dns.searches))
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "\n".join(lines) + "\n"


def read_resolv_conf(text: str) -> DnsConfig:
    """The host's own configuration."""
    servers, searches, options = [], [], []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in {"search", "domain"}:
            searches = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return DnsConfig(tuple(servers), tuple(searches), tuple(options))
