"""When rules fire: expressions, hysteresis, debounce, hold, staleness; and what they then do."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehPod, staged, veh_pod

from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles.kinds import LifecycleManagingRule, VehSignalSource
from fleetplane.operators.vehicles.lifecycle import rollback_patch, update_patch
from fleetplane.operators.vehicles.rules import Engine, RuleError, comparison_of, rule_of
from fleetplane.operators.vehicles.signals import Mqtt, SourceFailure, payload_value, read_drive

MOSQUITTO = shutil.which("mosquitto") or ("/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else "")


def when(topic: str, comparison: str, value: Any, **more: Any) -> dict[str, Any]:
    return {
        "conditionName": topic.lower(),
        "conditionTopic": topic,
        "conditionComparison": comparison,
        "conditionValue": value,
        **more,
    }


def sticky(*conditions: dict[str, Any], units: Any = None, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"lifeTime": "sticky", "conditionDefinitions": list(conditions), **more}
    if units is None:
        return {**spec, "condition": conditions[0]}
    made = [
        {"conditionsPreOperator": pre, "conditionsValue": name, "conditionsPostOperator": post}
        for pre, name, post in units
    ]
    return {**spec, "conditions": {"conditionUnits": made}}


def firing(spec: dict[str, Any], *samples: tuple[float, str, Any]) -> list[float]:
    """The times at which a rule fires; ``None`` as a topic is time passing."""
    engine, fired = Engine(), []
    engine.set("r", rule_of(spec))
    for at, topic, value in samples:
        while (due := engine.due_at) is not None and due <= at:
            fired += [due for _ in engine.tick(due)]
        value = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        fired += [at for _ in engine.feed(topic, value, at)]
    return fired


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GreaterThan", ">"),
        ("GreaterThanOrEqualTo", ">="),
        ("Equal", "=="),
        ("smaller or Equal", "<="),
        ("SmallerThan", "<"),
    ],
)
def test_comparisons_are_known_in_the_words_of_the_documents(text: str, expected: str) -> None:
    assert comparison_of(text) == expected


def test_a_rule_fires_when_its_condition_begins_to_hold_and_not_while_it_does() -> None:
    spec = sticky(when("Speed", "GreaterThan", "20"))
    assert firing(spec, (1, "Speed", 10), (2, "Speed", 21), (3, "Speed", 25), (4, "Speed", 5), (5, "Speed", 30)) == [
        2,
        5,
    ]


def test_one_time_is_one_time() -> None:
    spec = {**sticky(when("Speed", "GreaterThan", 20)), "lifeTime": "OneTime"}
    assert firing(spec, (1, "Speed", 21), (2, "Speed", 1), (3, "Speed", 22)) == [1]


def test_not_binds_before_and_before_or() -> None:
    parts = (when("A", "Equal", 1), when("B", "Equal", 1), when("C", "Equal", 1))
    spec = sticky(*parts, units=[("Not", "a", "And"), ("None", "b", "Or"), ("", "c", "")])
    assert firing(spec, (1, "A", 0), (2, "B", 0), (3, "C", 0), (4, "B", 1)) == [4]
    assert firing(spec, (1, "A", 1), (2, "B", 1), (3, "C", 1)) == [3]


def test_what_was_never_heard_of_holds_neither_plainly_nor_negated() -> None:
    spec = sticky(when("A", "Equal", 1), when("B", "Equal", 1), units=[("Not", "a", "And"), ("", "b", "")])
    assert firing(spec, (1, "B", 1)) == []
    assert firing(spec, (1, "B", 1), (2, "A", 0)) == [2]


def test_hysteresis_keeps_a_signal_at_the_limit_from_chattering() -> None:
    spec = sticky(when("T", "GreaterThan", 20, hysteresis=2))
    samples = [(float(n), "T", 20.5 if n % 2 else 19.5) for n in range(20)]
    assert firing(spec, *samples) == [1]
    assert firing(spec, (0, "T", 21), (1, "T", 17), (2, "T", 21)) == [0, 2]


def test_debounce_wants_a_change_to_last() -> None:
    spec = sticky(when("G", "Equal", "P", debounceSeconds=1.0))
    assert firing(spec, (0, "G", "D"), (1, "G", "P"), (1.5, "G", "D"), (2, "G", "P"), (9, "X", 0)) == [3]


def test_hold_bridges_short_gaps() -> None:
    spec = sticky(when("T", "GreaterThan", 5, holdSeconds=3.0))
    assert firing(spec, (0, "T", 9), (1, "T", 1), (2, "T", 9), (3, "T", 1), (8, "T", 9)) == [0, 8]


def test_a_silent_signal_stops_holding() -> None:
    spec = sticky(when("T", "GreaterThan", 5, stalenessSeconds=2.0))
    assert firing(spec, (0, "T", 9), (1, "T", 9), (6, "T", 9)) == [0, 6]
    assert firing(spec, (0, "T", 9), (1, "T", 9), (2.5, "T", 9)) == [0]


def test_mistakes_are_told_in_words() -> None:
    for spec, words in (
        (sticky(when("A", "Larger", 1)), "is no comparison"),
        (sticky(when("A", "GreaterThan", "fast")), "is no number"),
        (sticky(when("A", "Equal", 1), units=[("", "b", "")]), "no condition named"),
        (sticky(when("A", "Equal", 1), units=[("", "a", "Xor"), ("", "a", "")]), "And or Or"),
        ({**sticky(when("A", "Equal", 1)), "lifeTime": "often"}, "neither OneTime nor sticky"),
    ):
        with pytest.raises(RuleError, match=words):
            rule_of(spec)


bits = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30)
unit_lists = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from(["And", "Or"])), min_size=1, max_size=5
)


@given(units=unit_lists, samples=bits)
def test_the_engine_agrees_with_the_expression_written_out(units: Any, samples: Any) -> None:
    shaped = [("Not" if n else "", name, post if i < len(units) - 1 else "") for i, (n, name, post) in enumerate(units)]
    spec = sticky(*(when(name, "Equal", 1) for name in "abc"), units=shaped)
    known: dict[str, bool] = {}
    before, expected = False, []
    for at, (name, value) in enumerate(samples):
        known[name] = value
        groups: list[bool] = [True]
        for negated, which, post in units:
            groups[-1] = groups[-1] and which in known and known[which] is not negated
            if post == "Or":
                groups.append(True)
        if units[-1][2] == "Or":
            groups.pop()  # the operator of the last unit does not count
        holds = any(groups)
        if holds and not before:
            expected.append(float(at))
        before = holds
    assert firing(spec, *((float(at), name, float(value)) for at, (name, value) in enumerate(samples))) == expected


def test_fifty_thousand_samples_a_second_are_evaluated() -> None:
    engine, chance = Engine(), random.Random(1)
    for n in range(50):
        engine.set(
            n,
            rule_of(
                sticky(
                    when(f"S{n}", "GreaterThan", 50, hysteresis=5),
                    when(f"S{n + 1}", "SmallerThan", 50),
                    units=[("", f"s{n}", "And"), ("Not", f"s{n + 1}", "")],
                )
            ),
        )
    samples = [(f"S{chance.randrange(50)}", chance.random() * 100) for _ in range(20_000)]
    fired, begun = 0, time.process_time()
    for number, (topic, value) in enumerate(samples):
        fired += len(engine.feed(topic, value, number / 50_000))
    rate = len(samples) / (time.process_time() - begun)
    assert fired > 100
    assert rate >= 50_000, f"{rate:.0f} samples/s"


def test_rolling_back_is_exact() -> None:
    old = {"metadata": {"resourceVersion": "1"}, "spec": {"a": {"x": 1}, "b": 2}}
    patch = update_patch(old, {"a": {"y": 3}})
    new = {"metadata": {"annotations": patch["metadata"]["annotations"]}, "spec": {"a": {"x": 1, "y": 3}, "b": 2}}
    back = rollback_patch(new)
    assert back is not None
    assert back["spec"] == {"a": {"x": 1, "y": None}, "b": 2}
    assert rollback_patch(old) is None


def test_drives_and_payloads_are_read_carefully() -> None:
    assert [
        m.sample.value for m in read_drive('{"t":0,"topic":"a","value":"20"}\n\n{"t":1,"topic":"a","value":true}')
    ] == [20.0, True]
    with pytest.raises(SourceFailure, match="line 1"):
        list(read_drive("nonsense"))
    with pytest.raises(SourceFailure, match="line 2 of the drive is earlier"):
        list(read_drive('{"t":2,"topic":"a","value":1}\n{"t":1,"topic":"a","value":1}'))
    assert payload_value(b'{"value": 3}') == 3.0
    assert payload_value(b"Park") == "Park"
    assert payload_value(b"[1]") is None


def a_rule(name: str, action: str, target: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"name": name, "action": action, "target": [target], **spec}}


def drive(*samples: tuple[float, str, Any]) -> str:
    return "\n".join(orjson.dumps({"t": t, "topic": topic, "value": value}).decode() for t, topic, value in samples)


@staged(nodes=1)
async def test_the_gear_starts_and_stops_an_application(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("battery", state="Stopped"), "default")
    gear = "Vehicle.Powertrain.Transmission.CurrentGear"
    park = when(gear, "Equal", "P", conditionName="park")
    moving = when(gear, "Equal", "D", conditionName="driving")
    for name, action, condition in (("on", "start", moving), ("off", "stop", park)):
        rule = a_rule(name, action, "VehPod/battery", lifeTime="sticky", condition=condition)
        await stage.client.create(LifecycleManagingRule, rule, "default")

    async def watching() -> bool:
        rules = (await stage.client.list(LifecycleManagingRule, "default")).items
        return all((one.get("status") or {}).get("phase") == "Watching" for one in rules)

    await stage.until(watching)
    text = drive((0, gear, "P"), (5, gear, "D"), (60, gear, "P"))
    await stage.client.create(CONFIG_MAPS, {"metadata": {"name": "drive"}, "data": {"drive.jsonl": text}}, "default")
    source = {"metadata": {"name": "recorded"}, "spec": {"recordedDrive": {"configMap": "drive"}}}
    await stage.client.create(VehSignalSource, source, "default")
    await stage.running("battery")

    async def stopped() -> bool:
        return await stage.phase("battery") == "Stopped" and not await stage.pods()

    await stage.until(stopped)
    assert (await stage.client.get(LifecycleManagingRule, "on", "default"))["status"]["fired"] == 1


@staged(nodes=1)
async def test_a_rule_updates_and_another_rolls_back(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("app"), "default")
    await stage.running("app")
    change = {"podSpec": {"containers": [{"name": "main", "image": "app:2"}]}}
    await stage.client.create(LifecycleManagingRule, a_rule("up", "update", "VehPod/app", update=change), "default")

    async def image(wanted: str) -> bool:
        pod = await stage.pod("app")
        return pod is not None and pod["spec"]["containers"][0]["image"] == wanted

    async def updated() -> bool:
        return await image("app:2")

    async def back() -> bool:
        return await image("app:1")

    await stage.until(updated)
    await stage.client.create(LifecycleManagingRule, a_rule("back", "rollback", "VehPod/app"), "default")
    await stage.until(back)
    done = await stage.client.get(LifecycleManagingRule, "up", "default")
    assert (done["status"]["phase"], done["status"]["fired"]) == ("Done", 1)


BAD_RULES: list[tuple[dict[str, Any], str]] = [
    ({"action": "explode"}, "is none of start, stop, update, delete, rollback"),
    ({"target": ["Pod/app"]}, "is neither VehPod/name nor VehDeployment/name"),
    ({"lifeTime": "often"}, "neither OneTime nor sticky"),
    ({"condition": {"conditionName": "c", "conditionTopic": "t", "conditionComparison": "near"}}, "is no comparison"),
    ({"conditions": {"conditionUnits": [{"conditionsValue": "a", "conditionsPreOperator": "nor"}]}}, "neither Not nor"),
]


@staged(nodes=1)
async def test_a_rule_or_source_that_can_never_work_is_refused(stage: Stage) -> None:
    for change, says in BAD_RULES:
        rule = a_rule("odd", "start", "VehPod/app")
        rule["spec"] |= change
        with pytest.raises(ApiError, match=f"{says}.*rule rule-form"):
            await stage.client.create(LifecycleManagingRule, rule, "default")
    both = {"recordedDrive": {"configMap": "a"}, "mqtt": {"host": "b"}}
    for spec, says in (({}, "names nothing"), (both, "names recordedDrive and mqtt")):
        with pytest.raises(ApiError, match=f"{says}.*rule signal-source"):
            await stage.client.create(VehSignalSource, {"metadata": {"name": "s"}, "spec": spec}, "default")


@staged(nodes=1)
async def test_a_rule_waits_for_a_condition_that_another_one_defines(stage: Stage) -> None:
    combined = a_rule("both", "start", "VehPod/app")
    combined["spec"]["conditions"] = {"conditionUnits": [{"conditionsValue": "fast"}]}
    await stage.client.create(LifecycleManagingRule, combined, "default")
    told = await stage.says("both", "Ready", "False", LifecycleManagingRule)
    assert "no condition named 'fast'" in told["message"]
    assert await stage.phase("both", LifecycleManagingRule) == "Waiting"

    other = a_rule("other", "stop", "VehPod/app")
    fast = {"conditionName": "fast", "conditionTopic": "v", "conditionComparison": "GreaterThan", "conditionValue": 20}
    other["spec"]["condition"] = fast
    await stage.client.create(LifecycleManagingRule, other, "default")
    await stage.says("both", "Ready", "True", LifecycleManagingRule)
    assert await stage.phase("both", LifecycleManagingRule) == "Watching"


async def publish(port: int, topic: str, *payloads: bytes) -> None:
    """What any MQTT client sends: CONNECT, then PUBLISH at QoS 0."""
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    name = len(topic).to_bytes(2, "big") + topic.encode()
    writer.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04test")
    for payload in payloads:
        writer.write(b"\x30" + bytes([len(name) + len(payload)]) + name + payload)
    writer.write(b"\xe0\x00")
    await writer.drain()
    writer.close()


@pytest.mark.skipif(not MOSQUITTO, reason="Mosquitto is not installed")
async def test_samples_come_from_a_real_broker(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = await asyncio.create_subprocess_exec(
        MOSQUITTO, "-c", str(settings), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        found = []

        async def listen() -> None:
            while True:
                try:
                    async for sample in Mqtt("127.0.0.1", port, ["Vehicle/#"]).samples():
                        found.append(sample)
                        if len(found) >= 2:
                            return
                except SourceFailure:
                    await asyncio.sleep(0.05)

        listening = asyncio.ensure_future(listen())
        async with asyncio.timeout(10):
            while not listening.done():
                await publish(port, "Vehicle/Speed", b"17.5", b'{"value": "P"}')
                await asyncio.sleep(0.05)
        assert {one.value for one in found} <= {17.5, "P"}
        assert {one.topic for one in found} == {"Vehicle/Speed"}
    finally:
        broker.terminate()
        await broker.wait()
