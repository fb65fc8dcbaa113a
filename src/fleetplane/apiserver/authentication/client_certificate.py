"""Client certificates: the common name is the user, the organizations are the groups.

TLS has verified the chain already, but against all authorities together; here it is decided which one vouches, because
the front proxy's authority may vouch for a proxy and never for a user.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetplane.apiserver.authentication.identity import ROOT, Identity
from fleetplane.apiserver.certificates import cluster_of, is_issued_by
from fleetplane.model.environment import Environment
from fleetplane.model.user import UserInfo


def identity_of(der: bytes, authorities: Sequence[x509.Certificate], environment: Environment) -> Identity | None:
    """Whom a client certificate names; None when none of ``authorities`` issued it, or it is not good for clients now."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = _common_names(certificate)
        usable = _is_for_clients(certificate)
        cluster = cluster_of(certificate)
    except ValueError:
        return None
    now = environment.now()
    if not usable or not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return None
    if not names or not names[0] or not any(is_issued_by(certificate, one) for one in authorities):
        return None
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    user = UserInfo(names[0], groups=tuple(dict.fromkeys(str(group.value) for group in groups)))
    return Identity(user, cluster or ROOT, expires=certificate.not_valid_after_utc)


def _common_names(certificate: x509.Certificate) -> list[str]:
    return [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _is_for_clients(certificate: x509.Certificate) -> bool:
    """As TLS has it: a certificate that limits its usage must list client authentication."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
