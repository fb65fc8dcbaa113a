"""Webhooks and admission policies, CustomResourceDefinitions and APIServices: kinds that extend the API itself.

What a CustomResourceDefinition must say is checked where definitions are served; what CEL expressions mean, where they
are compiled.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    collected,
    in_range,
    named,
    required,
    required_name,
    spec_of,
    supported,
)
from fleetplane.apiserver.kinds.columns import UNSET, at, integer_column, text_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, condition
from fleetplane.model.selectors import validate_label_selector
from fleetplane.model.table import AGE, NAME

_REVIEW_VERSIONS: Final = ("v1", "v1beta1")
_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_MAX_CONDITIONS: Final = 64


def _default_service(config: Object) -> None:
    if isinstance(config.get("service"), dict):
        fill(config["service"], port=443)


def _default_rules(rules: Sequence[Object]) -> None:
    for rule in rules:
        fill(rule, scope="*")


def _default_webhooks(configuration: Object) -> None:
    mutating = configuration.get("kind") == "MutatingWebhookConfiguration"
    for webhook in entries(configuration, "webhooks"):
        fill(webhook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        for key in ("namespaceSelector", "objectSelector"):
            fill(webhook, **{key: {}})
        if mutating:
            fill(webhook, reinvocationPolicy="Never")
        _default_service(made(webhook, "clientConfig"))
        _default_rules(entries(webhook, "rules"))


def _validate_webhooks(configuration: Object, old: Object | None) -> Errors:
    seen = set()
    for index, webhook in enumerate(configuration.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        name = text(webhook, "name")
        if name in seen:
            yield FieldError.duplicate(f"{path}.name", name)
        seen.add(name)
        yield from _webhook(webhook, path)


def _webhook(webhook: Object, path: str) -> Errors:
    yield from _qualified(text(webhook, "name"), f"{path}.name")
    yield from _review_versions(webhook.get("admissionReviewVersions") or (), f"{path}.admissionReviewVersions")
    for index, rule in enumerate(webhook.get("rules") or ()):
        yield from _rule(rule, f"{path}.rules[{index}]")
    yield from supported(text(webhook, "failurePolicy"), ("Fail", "Ignore"), f"{path}.failurePolicy")
    yield from supported(text(webhook, "matchPolicy"), ("Equivalent", "Exact"), f"{path}.matchPolicy")
    effects = webhook.get("sideEffects")
    if effects is None:
        yield FieldError.required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun")
    else:
        yield from supported(effects, ("None", "NoneOnDryRun"), f"{path}.sideEffects")
    seconds = webhook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        yield FieldError.invalid(f"{path}.timeoutSeconds", seconds, detail)
    if webhook.get("reinvocationPolicy") is not None:
        yield from supported(webhook["reinvocationPolicy"], ("IfNeeded", "Never"), f"{path}.reinvocationPolicy")
    for key in ("namespaceSelector", "objectSelector"):
        yield from validate_label_selector(webhook.get(key), f"{path}.{key}")
    yield from client_config(webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    yield from _match_conditions(webhook.get("matchConditions") or (), f"{path}.matchConditions")


def _qualified(name: str, path: str) -> Errors:
    """A domain of at least three parts."""
    if not name:
        yield FieldError.required(path)
        return
    problems = names.dns1123_subdomain(name)
    for problem in problems:
        yield FieldError.invalid(path, name, problem)
    if not problems and name.count(".") < 2:
        yield FieldError.invalid(path, name, "should be a domain with at least three segments separated by dots")


def _review_versions(versions: Sequence[str], path: str) -> Errors:
    if not versions:
        yield FieldError.required(path, f"must specify one of {', '.join(_REVIEW_VERSIONS)}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield FieldError.invalid(f"{path}[{index}]", version, "duplicate version")
        yield from named(names.dns1035_label, version, f"{path}[{index}]")
    if not set(versions) & set(_REVIEW_VERSIONS):
        detail = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        yield FieldError.invalid(path, list(versions), detail)


def _rule(rule: Object, path: str) -> Errors:
    operations = rule.get("operations") or []
    if not operations:
        yield FieldError.required(f"{path}.operations")
    if len(operations) > 1 and "*" in operations:
        yield FieldError.invalid(
            f"{path}.operations", operations, "if '*' is present, must not specify other operations"
        )
    for index, operation in enumerate(operations):
        yield from supported(operation, _OPERATIONS, f"{path}.operations[{index}]")
    yield from resource_rule(rule, path)


def resource_rule(rule: Object, path: str) -> Errors:
    for key, word in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(key) or []
        if not values:
            yield FieldError.required(f"{path}.{key}")
        if len(values) > 1 and "*" in values:
            yield FieldError.invalid(f"{path}.{key}", values, f"if '*' is present, must not specify other {word}")
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield FieldError.required(f"{path}.apiVersions[{index}]")
    resources = rule.get("resources") or []
    if not resources:
        yield FieldError.required(f"{path}.resources")
    for index, resource in enumerate(resources):
        if not resource:
            yield FieldError.required(f"{path}.resources[{index}]")
    if len(resources) > 1 and "*/*" in resources:
        yield FieldError.invalid(
            f"{path}.resources", resources, "if '*/*' is present, must not specify other resources"
        )
    if "*" in resources and any("/" not in one and one != "*" for one in resources):
        detail = "if '*' is present, must not specify other resources without subresources"
        yield FieldError.invalid(f"{path}.resources", resources, detail)
    if rule.get("scope") is not None:
        yield from supported(rule["scope"], ("*", "Cluster", "Namespaced"), f"{path}.scope")


def client_config(config: Object, path: str) -> Errors:
    """How a webhook is reached: by URL or by Service, over TLS."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        yield FieldError.required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from webhook_url(url, f"{path}.url")
    else:
        for key in ("name", "namespace"):
            yield from required((service or {}).get(key), f"{path}.service.{key}")
        where = (service or {}).get("path")
        if where is not None and not where.startswith("/"):
            yield FieldError.invalid(f"{path}.service.path", where, "must start with a '/'")
        yield from in_range((service or {}).get("port"), 1, 65535, f"{path}.service.port")


def webhook_url(url: str, path: str) -> Errors:
    try:
        parts = urllib.parse.urlsplit(url)
        host, user = parts.hostname, parts.username
    except ValueError as error:
        detail = f"url must be a valid URL: {error}; desired format: https://host[/path]"
        yield FieldError.required(path, detail)
        return
    if parts.scheme != "https":
        detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
        yield FieldError.invalid(path, parts.scheme, detail)
    if not host:
        yield FieldError.invalid(path, host or "", "host must be specified; desired format: https://host[/path]")
    if user is not None:
        yield FieldError.invalid(path, "<redacted>", "user information is not permitted in the URL")
    for word, found in (("fragments", parts.fragment), ("query parameters", parts.query)):
        if found:
            yield FieldError.invalid(path, found, f"{word} are not permitted in the URL")


def _match_conditions(conditions: Sequence[Object], path: str) -> Errors:
    if len(conditions) > _MAX_CONDITIONS:
        yield FieldError.too_many(path, len(conditions), _MAX_CONDITIONS)
    seen = set()
    for index, one in enumerate(conditions):
        name = text(one, "name")
        yield from required_name(names.qualified_name, name, f"{path}[{index}].name")
        if name in seen:
            yield FieldError.duplicate(f"{path}[{index}].name", name)
        seen.add(name)
        yield from required(text(one, "expression").strip(), f"{path}[{index}].expression")


def _webhook_count(configuration: Mapping[str, Any]) -> int:
    return len(entries(configuration, "webhooks"))


WEBHOOK_CONFIGURATIONS: Final = KindBehaviour(
    default=_default_webhooks,
    validate=collected(_validate_webhooks),
    columns=(NAME, integer_column("Webhooks", "How many there are.", _webhook_count), AGE),
    unconditional_update=False,
)
"""Validating and mutating ones alike."""


def _default_match_resources(spec: Object, key: str) -> None:
    found = spec.get(key)
    if not isinstance(found, dict):
        return
    fill(found, matchPolicy="Equivalent")
    for selector in ("namespaceSelector", "objectSelector"):
        fill(found, **{selector: {}})
    _default_rules([*entries(found, "resourceRules"), *entries(found, "excludeResourceRules")])


def _default_policy(policy: Object) -> None:
    spec = made(policy, "spec")
    fill(spec, failurePolicy="Fail")
    _default_match_resources(spec, "matchConstraints")
    if policy.get("kind") == "MutatingAdmissionPolicy":
        fill(spec, reinvocationPolicy="Never")


def _validate_policy(policy: Object, old: Object | None) -> Errors:
    spec = spec_of(policy)
    yield from supported(text(spec, "failurePolicy"), ("Fail", "Ignore"), "spec.failurePolicy")
    kind = spec.get("paramKind")
    if kind is not None:
        yield from required(kind.get("apiVersion"), "spec.paramKind.apiVersion")
        yield from required(kind.get("kind"), "spec.paramKind.kind")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        yield FieldError.required("spec.matchConstraints")
    else:
        yield from _match_resources(constraints, "spec.matchConstraints", rules_needed=True)
    yield from _match_conditions(spec.get("matchConditions") or (), "spec.matchConditions")
    seen = set()
    for index, variable in enumerate(spec.get("variables") or ()):
        path, name = f"spec.variables[{index}]", text(variable, "name")
        if not name.isidentifier() or not name.isascii():
            yield FieldError.invalid(f"{path}.name", name, "name is not a valid CEL identifier")
        if name in seen:
            yield FieldError.duplicate(f"{path}.name", name)
        seen.add(name)
        yield from required(text(variable, "expression").strip(), f"{path}.expression")
    if policy.get("kind") == "ValidatingAdmissionPolicy":
        yield from _validations(spec)
    else:
        yield from _mutations(spec)


def _validations(spec: Object) -> Errors:
    validations, audits = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not validations and not audits:
        detail = "validations or auditAnnotations must contain at least one item"
        yield FieldError.required("spec.validations", detail)
    for index, one in enumerate(validations):
        path = f"spec.validations[{index}]"
        yield from required(text(one, "expression").strip(), f"{path}.expression", "expression is not specified")
        if one.get("reason") is not None:
            choices = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
            yield from supported(one["reason"], choices, f"{path}.reason")
        if "\n" in text(one, "message"):
            yield FieldError.invalid(f"{path}.message", one["message"], "message must not contain line breaks")
    for index, one in enumerate(audits):
        yield from required_name(names.qualified_name, text(one, "key"), f"spec.auditAnnotations[{index}].key")
        here = f"spec.auditAnnotations[{index}].valueExpression"
        yield from required(text(one, "valueExpression").strip(), here)


def _mutations(spec: Object) -> Errors:
    mutations = spec.get("mutations") or ()
    if not mutations:
        yield FieldError.required("spec.mutations", "mutations must contain at least one item")
    yield from supported(text(spec, "reinvocationPolicy"), ("IfNeeded", "Never"), "spec.reinvocationPolicy")
    for index, one in enumerate(mutations):
        path, kind = f"spec.mutations[{index}]", text(one, "patchType")
        key = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}.get(kind)
        if key is None:
            yield FieldError.not_supported(f"{path}.patchType", kind, ["ApplyConfiguration", "JSONPatch"])
        elif not text(section(one, key), "expression").strip():
            yield FieldError.required(f"{path}.{key}.expression")


def _match_resources(found: Object, path: str, *, rules_needed: bool = False) -> Errors:
    rules = found.get("resourceRules") or ()
    if rules_needed and not rules:
        yield FieldError.required(f"{path}.resourceRules")
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(found.get(key) or ()):
            yield from _rule(rule, f"{path}.{key}[{index}]")
    for key in ("namespaceSelector", "objectSelector"):
        yield from validate_label_selector(found.get(key), f"{path}.{key}")
    if found.get("matchPolicy") is not None:
        yield from supported(found["matchPolicy"], ("Equivalent", "Exact"), f"{path}.matchPolicy")


def _default_policy_binding(binding: Object) -> None:
    _default_match_resources(made(binding, "spec"), "matchResources")


def _validate_policy_binding(binding: Object, old: Object | None) -> Errors:
    spec = spec_of(binding)
    yield from required(spec.get("policyName"), "spec.policyName")
    reference = spec.get("paramRef")
    if reference is not None:
        if bool(reference.get("name")) == (reference.get("selector") is not None):
            yield FieldError.required("spec.paramRef.name", "one of name or selector must be specified")
        action = reference.get("parameterNotFoundAction")
        if action is None:
            yield FieldError.required("spec.paramRef.parameterNotFoundAction")
        else:
            yield from supported(action, ("Allow", "Deny"), "spec.paramRef.parameterNotFoundAction")
    if spec.get("matchResources") is not None:
        yield from _match_resources(spec["matchResources"], "spec.matchResources")
    if binding.get("kind") != "ValidatingAdmissionPolicyBinding":
        return
    actions = spec.get("validationActions") or []
    if not actions:
        yield FieldError.required("spec.validationActions", "at least one validation action is required")
    for index, action in enumerate(actions):
        yield from supported(action, ("Audit", "Deny", "Warn"), f"spec.validationActions[{index}]")
        if action in actions[:index]:
            yield FieldError.duplicate(f"spec.validationActions[{index}]", action)
    if "Deny" in actions and "Warn" in actions:
        detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API "
        yield FieldError.invalid("spec.validationActions", actions, detail + "response and headers serves no purpose)")


def _parameter_kind(policy: Mapping[str, Any]) -> str:
    found = section(policy, "spec", "paramKind")
    return f"{text(found, 'apiVersion')}/{text(found, 'kind')}" if found else UNSET


def _parameter_reference(binding: Mapping[str, Any]) -> str:
    found = section(binding, "spec", "paramRef")
    if not found:
        return UNSET
    namespace = text(found, "namespace") or "*"
    return f"{namespace}/{text(found, 'name')}" if found.get("name") else f"{namespace}/<selector>"


def _policy_columns(what: str, key: str) -> tuple[Any, ...]:
    return (
        NAME,
        integer_column(what, "How many there are.", lambda obj: len(entries(section(obj, "spec"), key))),
        text_column("ParamKind", "Kind of its parameters.", _parameter_kind),
        AGE,
    )


VALIDATING_POLICIES: Final = KindBehaviour(
    default=_default_policy,
    validate=collected(_validate_policy),
    columns=_policy_columns("Validations", "validations"),
    unconditional_update=False,
)
MUTATING_POLICIES: Final = KindBehaviour(
    default=_default_policy,
    validate=collected(_validate_policy),
    columns=_policy_columns("Mutations", "mutations"),
    unconditional_update=False,
)
POLICY_BINDINGS: Final = KindBehaviour(
    default=_default_policy_binding,
    validate=collected(_validate_policy_binding),
    columns=(
        NAME,
        text_column("PolicyName", "The policy it puts to work.", at("spec", "policyName")),
        text_column("ParamRef", "Its parameters.", _parameter_reference),
        AGE,
    ),
    unconditional_update=False,
)


def _default_definition(definition: Object) -> None:
    spec = made(definition, "spec")
    kind = section(spec, "names").get("kind")
    if isinstance(kind, str) and kind:
        fill(spec["names"], singular=kind.lower(), listKind=kind + "List")
    fill(spec, conversion={"strategy": "None"})
    _default_service(section(spec, "conversion", "webhook", "clientConfig"))


CUSTOM_RESOURCE_DEFINITIONS: Final = KindBehaviour(default=_default_definition, unconditional_update=False)


def _default_api_service(service: Object) -> None:
    reference = section(service, "spec").get("service")
    if isinstance(reference, dict):
        fill(reference, port=443)


def _validate_api_service(service: Object, old: Object | None) -> Errors:
    spec = spec_of(service)
    group, version = text(spec, "group"), text(spec, "version")
    name = text(service["metadata"], "name")
    wanted = f"{version}.{group}"
    if name != wanted:
        yield FieldError.invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"')
    if group:
        yield from named(names.dns1123_subdomain, group, "spec.group")
    elif version != "v1":
        yield FieldError.required("spec.group", "only v1 may have an empty group and it better be legacy kube")
    yield from required_name(names.dns1035_label, version, "spec.version")
    for key, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(key) or 0
        if not 0 < value <= most:
            yield FieldError.invalid(f"spec.{key}", value, f"must be positive and less than {most}")
    reference = spec.get("service")
    bundle, skips = spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    if reference is None:
        if bundle:
            detail = "local APIServices may not have a caBundle"
            yield FieldError.invalid("spec.caBundle", f"{len(bundle)} bytes", detail)
        if skips:
            detail = "local APIServices may not have insecureSkipTLSVerify"
            yield FieldError.invalid("spec.insecureSkipTLSVerify", skips, detail)
        return
    for key in ("namespace", "name"):
        yield from required(reference.get(key), f"spec.service.{key}")
    yield from in_range(reference.get("port"), 1, 65535, "spec.service.port")
    if skips and bundle:
        detail = "may not be true if caBundle is present"
        yield FieldError.invalid("spec.insecureSkipTLSVerify", skips, detail)
    if bundle and b"BEGIN CERTIFICATE" not in _decoded(bundle):
        yield FieldError.invalid(
            "spec.caBundle", "<bytes>", "unable to load root certificates: no PEM certificate found"
        )


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except ValueError:
        return b""


def _served_by(service: Mapping[str, Any]) -> str:
    reference = section(service, "spec", "service")
    return f"{text(reference, 'namespace')}/{text(reference, 'name')}" if reference else "Local"


def _available(service: Mapping[str, Any]) -> str:
    found = condition(service, "Available")
    if found is None:
        return "Unknown"
    if found.get("status") == "True":
        return "True"
    return f"{text(found, 'status')} ({text(found, 'reason')})"


API_SERVICES: Final = KindBehaviour(
    default=_default_api_service,
    validate=collected(_validate_api_service),
    validate_name=names.path_segment,
    columns=(
        NAME,
        text_column("Service", "Who serves it.", _served_by),
        text_column("Available", "Whether it answers.", _available),
        AGE,
    ),
    has_generation=False,
    unconditional_update=False,
)
