"""What may be called what: the grammars of names, labels and their kin.

Each check returns the list of what is wrong with a value, empty when nothing is, in apimachinery's words (clients and
tests compare them). Checks run on every write, so the good case is one match of a compiled pattern. All patterns here
are ours and linear: none nests a repetition inside another over the same characters. Lengths are in bytes of UTF-8,
as everywhere in Kubernetes.

Sources: RFC 1035, RFC 1123, and the published naming rules of the Kubernetes API.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_LABEL_1123: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_1123: Final = rf"{_LABEL_1123}(\.{_LABEL_1123})*"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD: Final = rf"\*\.{_SUBDOMAIN_1123}"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = f"({_QUALIFIED})?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"

_is_label_1123 = re.compile(_LABEL_1123).fullmatch
_is_subdomain_1123 = re.compile(_SUBDOMAIN_1123).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_wildcard = re.compile(_WILDCARD).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch
_is_prefixed = re.compile(f"{_SUBDOMAIN_1123}/{_QUALIFIED}").fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_port_charset = re.compile("[-a-z0-9]+").fullmatch

_RFC_1123_RULE: Final = (
    "must consist of lower case alphanumeric characters{extra}, and must start and end with an alphanumeric character"
)
_QUALIFIED_RULE: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def max_length_error(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def range_error(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


EMPTY_ERROR: Final = "must be non-empty"


def _pattern_error(rule: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{one}', " for one in examples)
    return f"{rule} (e.g. {shown}regex used for validation is '{pattern}')"


def _too_long(value: str, limit: int) -> list[str]:
    return [max_length_error(limit)] if len(value.encode("utf-8", "surrogatepass")) > limit else []


def dns1123_label(value: str) -> list[str]:
    """One label of a DNS name, as a namespace or a container must be: lower case, 63 bytes."""
    if _is_label_1123(value) and len(value) <= 63:
        return []
    errors = _too_long(value, 63)
    if not _is_label_1123(value):
        if _is_subdomain_1123(value):
            errors.append("must not contain dots")
        else:
            rule = "a lowercase RFC 1123 label " + _RFC_1123_RULE.format(extra=" or '-'")
            errors.append(_pattern_error(rule, _LABEL_1123, "my-name", "123-abc"))
    return errors


def dns1123_subdomain(value: str) -> list[str]:
    """A whole DNS name, as most objects' names must be: lower case labels and dots, 253 bytes."""
    if _is_subdomain_1123(value) and len(value) <= 253:
        return []
    errors = _too_long(value, 253)
    if not _is_subdomain_1123(value):
        rule = "a lowercase RFC 1123 subdomain " + _RFC_1123_RULE.format(extra=", '-' or '.'")
        errors.append(_pattern_error(rule, _SUBDOMAIN_1123, "example.com"))
    return errors


def dns1035_label(value: str) -> list[str]:
    """A label that starts with a letter, as a Service's name must."""
    errors = _too_long(value, 63)
    if not _is_label_1035(value):
        rule = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        errors.append(_pattern_error(rule, _LABEL_1035, "my-name", "abc-123"))
    return errors


def wildcard_subdomain(value: str) -> list[str]:
    """``*.`` and a subdomain, as an Ingress host may be."""
    errors = _too_long(value, 253)
    if not _is_wildcard(value):
        rule = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        errors.append(_pattern_error(rule, _WILDCARD, "*.example.com"))
    return errors


def label_key(value: str) -> list[str]:
    """A qualified name: an optional DNS prefix and ``/``, then at most 63 letters, digits and ``-_.``."""
    prefix, slash, name = value.rpartition("/")
    if len(value) <= 63 and _is_short_key(value):
        return []  # all but a few are
    if "/" in prefix:
        rule = _pattern_error("a valid label key " + _QUALIFIED_RULE, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [rule + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    errors: list[str] = []
    if slash:
        wrong = dns1123_subdomain(prefix) if prefix else [EMPTY_ERROR]
        errors += [f"prefix part {error}" for error in wrong]
    if not name:
        errors.append(f"name part {EMPTY_ERROR}")
    else:
        errors += [f"name part {error}" for error in _too_long(name, 63)]
    if not _is_qualified(name):
        rule = _pattern_error(_QUALIFIED_RULE, _QUALIFIED, "MyName", "my.name", "123-abc")
        errors.append(f"name part {rule}")
    return errors


@lru_cache(1024)
def _is_short_key(value: str) -> bool:
    """Remembered, because the same few keys come with object after object."""
    return bool(_is_prefixed(value) or _is_qualified(value))


qualified_name = label_key
"""Annotations, finalizers, conditions and resource names follow the grammar of label keys."""


def label_value(value: str) -> list[str]:
    """Empty, or at most 63 letters, digits and ``-_.`` that start and end with a letter or digit."""
    if not value or (_is_qualified(value) and len(value) <= 63):
        return []
    errors = _too_long(value, 63)
    if not _is_qualified(value):
        rule = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        errors.append(_pattern_error(rule, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def path_segment(value: str) -> list[str]:
    """A name that can stand in a URL path: the loosest grammar an object's name may have."""
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    return [f"may not contain '{one}'" for one in "/%" if one in value]


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret: it becomes a file name, so it may not climb out of its directory."""
    errors = _too_long(value, 253)
    if not _is_config_key(value):
        rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(_pattern_error(rule, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value in {".", ".."}:
        errors.append(f"must not be '{value}'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def env_var_name(value: str) -> list[str]:
    """The name of an environment variable: printable ASCII without ``=``."""
    if not value:
        return [f"environment variable name {EMPTY_ERROR}"]
    if all(" " <= one <= "~" and one != "=" for one in value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [range_error(1, 65535)]


def port_name(value: str) -> list[str]:
    """An IANA service name (RFC 6335), lower case only."""
    errors = _too_long(value, 15)
    if not _is_port_charset(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= one <= "z" for one in value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors
