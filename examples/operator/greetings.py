"""A Greeting becomes a ConfigMap that says it several times."""

from fleetplane.controller import Condition, Context, Operator, controller_for
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.kind import Column, Kind, StatusCondition, View, field


class GreetingSpec(View):
    text: str = field(doc="What to say.", max_length=100)
    times: int = field(default=1, doc="How often.", minimum=1, maximum=10)


class GreetingStatus(View):
    said: int = field(default=0, column=Column("Said", type="integer"))
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Greeting(Kind, group="example.org", version="v1"):
    """Says something, several times, in a ConfigMap."""

    spec: GreetingSpec
    status: GreetingStatus = field(default_factory=lambda: GreetingStatus.view({}))


def plan(greeting: Greeting) -> list[dict]:
    text = "\n".join([greeting.spec.text] * greeting.spec.times)
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": greeting.name}, "data": {"text": text}}]


async def reconcile(context: Context[Greeting], greeting: Greeting) -> None:
    await context.apply_children(plan(greeting))
    await context.set_status({"said": greeting.spec.times}, Condition("Ready", True, "Said"))


OPERATOR = Operator("greetings", lambda m: [controller_for(m, Greeting, reconcile, owns=[CONFIG_MAPS])], [Greeting])
