"""Which OpenID issuers may name users, and how their claims become one: ``AuthenticationConfiguration``.

The file format is Kubernetes' (``apiserver.config.k8s.io``, ``jwt`` section), expressions included; they are CEL over
``claims`` and ``user``. A file that cannot be used is refused as a whole, with the field that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from fleetplane.model.cel import DYN, CelCompileError, CelCostExceeded, CelError, Declarations, Program
from fleetplane.model.cel import compile as compile_cel

_VERSIONS: Final = frozenset(f"apiserver.config.k8s.io/{one}" for one in ("v1", "v1beta1", "v1alpha1"))
_MAX_ISSUERS: Final = 64


class UnusableClaims(Exception):
    """The claims do not make a user here; the message says why, without any of their values."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """One part of a user: a claim with a prefix, or an expression over ``claims``."""

    claim: str = ""
    prefix: str = ""
    expression: Program | None = None

    @property
    def is_set(self) -> bool:
        return bool(self.claim) or self.expression is not None

    def texts(self, claims: Mapping[str, Any]) -> list[str]:
        """The strings it finds: none for an absent claim or an empty string. Raises UnusableClaims."""
        found = run(self.expression, {"claims": claims}) if self.expression is not None else claims.get(self.claim)
        if found is None or found == "":
            return []
        listed = found if isinstance(found, list | tuple) else [found]
        if not all(isinstance(one, str) for one in listed):
            raise UnusableClaims(f"{self.claim or 'an expression'} is neither a string nor a list of strings")
        return [self.prefix + one for one in listed]


@dataclass(frozen=True, slots=True)
class Check:
    """A rule that must hold: a claim with exactly this value, or an expression that is true."""

    message: str
    claim: str = ""
    required: str = ""
    expression: Program | None = None

    def holds(self, variables: Mapping[str, Any]) -> bool:
        if self.expression is not None:
            return run(self.expression, variables) is True
        return bool(variables["claims"].get(self.claim) == self.required)


@dataclass(frozen=True, slots=True)
class Issuer:
    """One trusted issuer. ``authority`` is the PEM of what its server must be certified by; empty means the system's."""

    url: str
    audiences: tuple[str, ...]
    username: Mapped
    groups: Mapped = Mapped()
    uid: Mapped = Mapped()
    extra: tuple[tuple[str, Mapped], ...] = ()
    claim_checks: tuple[Check, ...] = ()
    user_checks: tuple[Check, ...] = ()
    discovery_url: str = ""
    authority: str = ""

    @property
    def configuration_url(self) -> str:
        return self.discovery_url or self.url.rstrip("/") + "/.well-known/openid-configuration"


def run(program: Program, variables: Mapping[str, Any]) -> Any:
    """Evaluate; an expression that fails or costs too much makes no user."""
    try:
        return program.evaluate(variables)
    except (CelError, CelCostExceeded) as error:
        raise UnusableClaims(f"the expression {program.source!r} cannot be evaluated") from error


# --- reading the file -----------------------------------------------------------------------------------------------


def read_issuers(data: Mapping[str, Any]) -> tuple[Issuer, ...]:
    """The issuers of an AuthenticationConfiguration. Raises ValueError that names the field."""
    if data.get("kind") != "AuthenticationConfiguration" or data.get("apiVersion") not in _VERSIONS:
        raise ValueError("the file must have kind AuthenticationConfiguration of apiserver.config.k8s.io/v1")
    listed = data.get("jwt") or []
    if not isinstance(listed, list) or len(listed) > _MAX_ISSUERS:
        raise ValueError(f"jwt must be a list of at most {_MAX_ISSUERS} issuers")
    found = tuple(_issuer(_mapping(one, f"jwt[{i}]"), f"jwt[{i}]") for i, one in enumerate(listed))
    if len({one.url for one in found}) < len(found):
        raise ValueError("jwt names the same issuer twice; issuer.url must be unique")
    return found


def simple_issuer(
    url: str,
    client_id: str,
    *,
    username_claim: str = "sub",
    username_prefix: str | None = None,
    groups_claim: str = "",
    groups_prefix: str = "",
    authority: str = "",
) -> Issuer:
    """An issuer from kube-apiserver's ``--oidc-*`` options. Raises ValueError.

    Without a prefix, names are prefixed with ``<url>#`` unless they are e-mail addresses; ``-`` means none.
    """
    prefix = username_prefix
    if prefix is None:
        prefix = "" if username_claim == "email" else f"{url}#"
    elif prefix == "-":
        prefix = ""
    _check_url(url, "the issuer URL")
    if not client_id:
        raise ValueError("the client id is required: tokens must be meant for somebody")
    groups = Mapped(groups_claim, groups_prefix) if groups_claim else Mapped()
    return Issuer(url, (client_id,), Mapped(username_claim, prefix), groups, authority=authority)


def _issuer(data: Mapping[str, Any], path: str) -> Issuer:
    issuer = _mapping(data.get("issuer"), f"{path}.issuer")
    url, discovery = str(issuer.get("url") or ""), str(issuer.get("discoveryURL") or "")
    _check_url(url, f"{path}.issuer.url")
    if discovery:
        _check_url(discovery, f"{path}.issuer.discoveryURL")
        if discovery == url:
            raise ValueError(f"{path}.issuer.discoveryURL must differ from the url")
    audiences = tuple(str(one) for one in issuer.get("audiences") or () if one)
    if not audiences:
        raise ValueError(f"{path}.issuer.audiences is required: tokens must be meant for somebody")
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        raise ValueError(f"{path}.issuer.audienceMatchPolicy must be MatchAny where there are several audiences")
    mappings = _mapping(data.get("claimMappings"), f"{path}.claimMappings")
    username = _mapped(mappings.get("username"), f"{path}.claimMappings.username", with_prefix=True)
    if not username.is_set:
        raise ValueError(f"{path}.claimMappings.username needs a claim or an expression")
    return Issuer(
        url,
        audiences,
        username,
        _mapped(mappings.get("groups"), f"{path}.claimMappings.groups", with_prefix=True),
        _mapped(mappings.get("uid"), f"{path}.claimMappings.uid", with_prefix=False),
        tuple(_extra(mappings.get("extra"), f"{path}.claimMappings.extra")),
        tuple(_checks(data.get("claimValidationRules"), f"{path}.claimValidationRules", "claims")),
        tuple(_checks(data.get("userValidationRules"), f"{path}.userValidationRules", "user")),
        discovery,
        str(issuer.get("certificateAuthority") or ""),
    )


def _mapped(data: Any, path: str, *, with_prefix: bool) -> Mapped:
    if data is None:
        return Mapped()
    found = _mapping(data, path)
    claim, expression, prefix = found.get("claim"), found.get("expression"), found.get("prefix")
    if bool(claim) and bool(expression):
        raise ValueError(f"{path} cannot have both a claim and an expression")
    if expression:
        if prefix is not None:
            raise ValueError(f"{path}.prefix cannot be used with an expression; write it into the expression")
        return Mapped(expression=_program(str(expression), f"{path}.expression", "claims"))
    if claim and with_prefix and prefix is None:
        raise ValueError(f'{path}.prefix is required with a claim; set it to "" for none')
    return Mapped(str(claim or ""), str(prefix or ""))


def _extra(data: Any, path: str) -> Iterator[tuple[str, Mapped]]:
    seen: set[str] = set()
    for i, one in enumerate(data or ()):
        entry = _mapping(one, f"{path}[{i}]")
        key = str(entry.get("key") or "")
        domain, slash, name = key.partition("/")
        if not slash or not name or "." not in domain or key != key.lower() or key in seen:
            raise ValueError(f"{path}[{i}].key must be a unique, lower-case name with a domain (example.com/name)")
        if domain in {"kubernetes.io", "k8s.io"} or domain.endswith((".kubernetes.io", ".k8s.io")):
            raise ValueError(f"{path}[{i}].key may not be in a domain of Kubernetes")
        seen.add(key)
        yield (
            key,
            Mapped(
                expression=_program(str(entry.get("valueExpression") or ""), f"{path}[{i}].valueExpression", "claims")
            ),
        )


def _checks(data: Any, path: str, variable: str) -> Iterator[Check]:
    for i, one in enumerate(data or ()):
        rule = _mapping(one, f"{path}[{i}]")
        expression = rule.get("expression")
        if expression:
            program = _program(str(expression), f"{path}[{i}].expression", variable)
            yield Check(str(rule.get("message") or f"the rule {expression!r} does not hold"), expression=program)
        elif variable == "claims" and rule.get("claim"):
            claim = str(rule["claim"])
            message = f'the claim "{claim}" does not have the required value'
            yield Check(message, claim, str(rule.get("requiredValue") or ""))
        else:
            raise ValueError(f"{path}[{i}] needs an expression" + (" or a claim" if variable == "claims" else ""))


def _program(text: str, path: str, variable: str) -> Program:
    try:
        return compile_cel(text, Declarations({variable: DYN}), result=None)
    except CelCompileError as error:
        raise ValueError(f"{path} is no usable expression: {error}") from error


def _check_url(url: str, path: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{path} must be an https URL without user, query or fragment")


def _mapping(data: Any, path: str) -> Mapping[str, Any]:
    if isinstance(data, dict):
        return data
    raise ValueError(f"{path} must be an object")
