"""Names, labels and their kin: what is accepted, and how a refusal is worded."""

from __future__ import annotations

import time

import pytest

from fleetplane.model import names


@pytest.mark.parametrize("value", ["a", "0", "my-name", "123-abc", "a" * 63])
def test_dns_labels(value: str) -> None:
    assert names.dns1123_label(value) == []


def test_a_label_has_no_dots() -> None:
    assert names.dns1123_label("a.b") == ["must not contain dots"]


def test_a_label_is_lower_case_and_short() -> None:
    assert names.dns1123_label("A" * 64) == [
        "must be no more than 63 bytes",
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ]


@pytest.mark.parametrize("value", ["", "-a", "a-", "a\n", "ä", "a_b"])
def test_what_no_label_is(value: str) -> None:
    assert names.dns1123_label(value)


def test_subdomains_are_labels_with_dots() -> None:
    assert names.dns1123_subdomain("a.b-c.d0") == []
    (error,) = names.dns1123_subdomain("a..b")
    assert error.startswith("a lowercase RFC 1123 subdomain must consist of")
    assert names.dns1123_subdomain("a" * 254) == ["must be no more than 253 bytes"]


def test_services_start_with_a_letter() -> None:
    assert names.dns1035_label("web-1") == []
    (error,) = names.dns1035_label("1-web")
    assert error.startswith("a DNS-1035 label must consist of")


@pytest.mark.parametrize("value", ["app", "App_1", "example.com/app", "a.b/C.d-e", "x" * 63])
def test_label_keys(value: str) -> None:
    assert names.label_key(value) == []


def test_what_is_wrong_with_a_label_key() -> None:
    assert names.label_key("/a") == ["prefix part must be non-empty"]
    assert names.label_key("a/")[0] == "name part must be non-empty"
    assert names.label_key("Prefix/a")[0].startswith("prefix part a lowercase RFC 1123 subdomain")
    assert names.label_key("a/b/c")[0].startswith("a valid label key must consist of")
    assert names.label_key("x" * 64) == ["name part must be no more than 63 bytes"]


def test_label_values_may_be_empty() -> None:
    assert names.label_value("") == []
    assert names.label_value("v1.2_3") == []
    assert names.label_value("-")[0].startswith("a valid label must be an empty string or consist of")


def test_path_segments() -> None:
    assert names.path_segment("system:node:a") == []
    assert names.path_segment("..") == ["may not be '..'"]
    assert names.path_segment("a/b%") == ["may not contain '/'", "may not contain '%'"]


def test_config_keys_stay_in_their_directory() -> None:
    assert names.config_key("a.json") == []
    assert names.config_key("..") == ["must not be '..'"]
    assert names.config_key("..data") == ["must not start with '..'"]


def test_port_names() -> None:
    assert names.port_name("http-2") == []
    assert names.port_name("80") == ["must contain at least one letter (a-z)"]
    assert names.port_name("a--b-") == ["must not contain consecutive hyphens", "must not begin or end with a hyphen"]


def test_environment_variables_are_printable() -> None:
    assert names.env_var_name("my env") == []
    assert names.env_var_name("a=b")


def test_a_hostile_name_costs_no_time() -> None:
    start = time.perf_counter()
    names.dns1123_subdomain("a-" * 500_000 + "!")
    names.label_key("a." * 500_000 + "!")
    assert time.perf_counter() - start < 1
