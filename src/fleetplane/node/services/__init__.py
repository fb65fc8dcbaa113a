"""Services on a node: their addresses lead to pods, and their names to addresses.

Reading order: ``table`` (what Services and EndpointSlices add up to), ``rules`` (that as nftables), ``proxy`` (keeps the
kernel at it), ``zone`` (what names mean), ``dns`` (answers on the wire).
"""

from fleetplane.node.services.dns import DnsServer, why_no_dns
from fleetplane.node.services.proxy import ServiceProxy, remove_rules

__all__ = ["DnsServer", "ServiceProxy", "remove_rules", "why_no_dns"]
