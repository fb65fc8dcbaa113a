"""Typed, read-only views on plain objects.

A ``View`` holds a reference to a mapping and nothing else. Attributes are descriptors that look the JSON name up and
convert what they find; nested views are made on the way and cost a slot. The data is never copied or changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, dataclass_transform, get_type_hints, overload

from fleetplane.model.kind.fields import MISSING, Column, FieldInfo, Rule, Scale, constraints, field
from fleetplane.model.kind.naming import camel_case, own_doc, plural_of
from fleetplane.model.kind.types import Plan, Resolve, plan_of
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType

Home = Literal["hub", "edge", "both"]


class Attribute:
    """One field of a view: where it is found and what it becomes."""

    __slots__ = ("_owner", "_plan", "info", "json_name", "python_name")

    def __init__(self, owner: type, python_name: str, info: FieldInfo) -> None:
        self._owner = owner
        self._plan: Plan | None = None
        self.python_name = python_name
        self.info = info
        self.json_name = info.name or camel_case(python_name)

    @property
    def plan(self) -> Plan:
        # Annotations are text until the whole module is loaded, so they are worked out on first use.
        if self._plan is None:
            self._plan = plan_of(get_type_hints(self._owner, include_extras=True)[self.python_name])
        return self._plan

    @property
    def view(self) -> type[View] | None:
        """The class of the value, where it is a view itself."""
        return self.plan.view

    @property
    def is_required(self) -> bool:
        return self.info.is_required and not self.plan.is_optional

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: View, owner: type) -> Any: ...
    def __get__(self, instance: View | None, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.object.get(self.json_name)
        plan = self._plan or self.plan
        if value is None:
            return self._absent(plan)
        return value if plan.read is None else plan.read(value)

    def _absent(self, plan: Plan) -> Any:
        info = self.info
        if info.default_factory is not None:
            return info.default_factory()
        if info.default is not MISSING:
            return info.default
        if plan.is_optional:
            return None
        if plan.empty is not None:
            return plan.empty()
        raise AttributeError(f"{self._owner.__name__} has no {self.json_name}, which is required")

    def __set__(self, instance: View, value: Any) -> None:
        raise AttributeError(f"{self._owner.__name__} is a view and cannot be changed; apply or patch the object")

    def written(self, value: Any) -> Any:
        return value if value is None or self.plan.write is None else self.plan.write(value)

    def schema(self, resolve: Resolve) -> Object:
        """The field's schema: the type's, what the field adds, its default."""
        shown = self.plan.schema(resolve) | constraints(self.info)
        # An empty string is what reading gives anyway, and servers before 1.21 refuse it as a default.
        if self.info.default is not MISSING and self.info.default is not None and self.info.default != "":
            shown["default"] = self.written(self.info.default)
        return shown


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class View:
    """Part of an object, typed. Made from data with ``view``, or from values with the constructor.

    Class arguments: ``rules``, CEL rules on the whole.
    """

    __slots__ = ("object",)

    attributes: ClassVar[Mapping[str, Attribute]] = {}
    rules: ClassVar[tuple[Rule, ...]] = ()
    object: Object
    """The data behind the view."""

    def __init_subclass__(cls, *, rules: Sequence[Rule] = (), **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.rules = (*cls.rules, *rules)
        attributes = dict(cls.attributes)
        for name, annotation in inspect.get_annotations(cls).items():
            if name.startswith("_") or "ClassVar" in str(annotation):
                continue
            given = cls.__dict__.get(name, MISSING)
            info = given if isinstance(given, FieldInfo) else FieldInfo(default=given)
            attributes[name] = Attribute(cls, name, info)
            setattr(cls, name, attributes[name])
        cls.attributes = attributes

    def __init__(self, **values: Any) -> None:
        attributes = type(self).attributes
        if unknown := values.keys() - attributes.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        data: Object = {}
        for name, attribute in attributes.items():
            if name in values:
                if values[name] is not None:
                    data[attribute.json_name] = attribute.written(values[name])
            elif attribute.is_required:
                raise TypeError(f"{type(self).__name__} needs {name}")
        object.__setattr__(self, "object", data)

    @classmethod
    def view(cls, data: Mapping[str, Any]) -> Self:
        """A view on ``data``, which is not copied."""
        made = object.__new__(cls)
        object.__setattr__(made, "object", data)
        return made

    @classmethod
    def object_schema(cls, resolve: Resolve) -> Object:
        """The structural schema of this class."""
        shown: Object = {"type": "object"}
        if doc := own_doc(cls):
            shown["description"] = doc
        shown["properties"] = {one.json_name: one.schema(resolve) for one in cls.attributes.values()}
        if required := [one.json_name for one in cls.attributes.values() if one.is_required]:
            shown["required"] = required
        if cls.rules:
            shown["x-kubernetes-validations"] = [rule.to_object() for rule in cls.rules]
        return shown

    if not TYPE_CHECKING:  # a type checker that sees it believes any attribute can be set

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{type(self).__name__} is a view and cannot be changed; apply or patch the object")

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and bool(other.object == self.object)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.object!r})"


class OwnerReferenceView(View):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class Metadata(View):
    """What controllers read of ObjectMeta; the rest is in ``object``."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    owner_references: list[OwnerReferenceView] = field(default_factory=list)


class StatusCondition(View):
    """``metav1.Condition``. Declare ``conditions: list[StatusCondition] = field(list_map_keys=["type"], …)``."""

    type: str = field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: str = field(max_length=1024)
    message: str = field(default="", max_length=32768)
    last_transition_time: datetime
    observed_generation: int | None = None


class Kind(View):
    """A whole object of one version of a kind.

    Class arguments:
        group, version: Where it is served.
        name, plural, singular: Where they are not the class name and its regular plural.
        namespaced: False for cluster-scoped kinds.
        short_names, categories: For the command line.
        columns: Printer columns besides those of fields; the age is always last.
        scale: Serve ``scale``.
        home: Where the kind lives: hub, edge or both.
        served, deprecated: ``deprecated`` is the warning clients are shown.
        unique: What no two objects of a logical cluster may share: a field's name to the JSONPaths that make the value, the
            last of which may find several. Our servers see to it in the store; any other Kubernetes ignores it.
        rules: CEL rules on the whole object.
    """

    resource: ClassVar[ResourceType]
    columns: ClassVar[tuple[Column, ...]] = ()
    scale: ClassVar[Scale | None] = None
    home: ClassVar[Home] = "both"
    served: ClassVar[bool] = True
    deprecated: ClassVar[str] = ""
    unique: ClassVar[Mapping[str, Sequence[str]]] = {}

    metadata: Metadata = field(default_factory=lambda: Metadata.view({}))

    def __init_subclass__(
        cls,
        *,
        group: str,
        version: str,
        name: str = "",
        plural: str = "",
        singular: str = "",
        namespaced: bool = True,
        short_names: Sequence[str] = (),
        categories: Sequence[str] = (),
        columns: Sequence[Column] = (),
        scale: Scale | None = None,
        home: Home = "both",
        served: bool = True,
        deprecated: str = "",
        unique: Mapping[str, Sequence[str]] | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        super().__init_subclass__(rules=rules)
        kind = name or cls.__name__
        cls.resource = ResourceType(
            group=group,
            version=version,
            kind=kind,
            plural=plural or plural_of(kind.lower()),
            namespaced=namespaced,
            singular=singular or kind.lower(),
            short_names=tuple(short_names),
            categories=tuple(categories),
        )
        cls.columns = tuple(columns)
        cls.scale = scale
        cls.home = home
        cls.served = served
        cls.deprecated = deprecated
        cls.unique = unique or {}

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.object.update(apiVersion=self.resource.api_version, kind=self.resource.kind)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def generation(self) -> int:
        return self.metadata.generation

    @property
    def labels(self) -> Mapping[str, str]:
        return self.metadata.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.annotations

    @property
    def is_deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None
