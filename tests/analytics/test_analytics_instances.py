"""Servers' configuration, contract, agents and the collectors' books, in a window that no other test looks at."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import configuration, contract, instances, ledger
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

SECONDS = 600
FLEET = {
    "chat-a": ("chat", "vllm"),
    "chat-b": ("chat", "vllm"),
    "chat-t": ("chat", "triton"),
    "code-a": ("code", "vllm"),
}


def row(lab: Lab, second: float, **values: Any) -> dict[str, Any]:
    return {"time": start_of(lab) + timedelta(seconds=second), "recording": ""} | values


def start_of(lab: Lab) -> datetime:
    return lab.start - timedelta(hours=5)


def event(lab: Lab, second: float, name: str, instance: str, **attributes: str) -> dict[str, Any]:
    engine = FLEET[instance][1]
    return row(lab, second, event=name, instance=instance, deployment=FLEET[instance][0], engine=engine,
               message=f"{instance} {name} {attributes.get('what', '')}", attributes=attributes)  # fmt: skip


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Lab:
    lab.owner.insert("engine_samples", [
        row(lab, second, instance=name, deployment=deployment, engine=engine, version="9.1", model="m", dp_rank="0",
            up=1, role="decode", node="n1", interval_seconds=10.0, sender_key_id="k", sender_peer="10.0.0.1")
        for second in range(0, SECONDS, 10) for name, (deployment, engine) in FLEET.items()
    ])  # fmt: skip
    lab.owner.insert("instance_config", [
        row(lab, -3000, instance="chat-a", engine="vllm", config={"blocks": "10", "dtype": "old", "same": "1"}),
        row(lab, -2000, instance="chat-a", engine="vllm", config={"blocks": "10", "dtype": "fp8", "same": "1"}),
        row(lab, 100, instance="chat-b", engine="vllm", config={"blocks": "20", "dtype": "fp8", "same": "1"}),
        row(lab, 200, instance="chat-t", engine="triton", config={"blocks": "30"}),
        row(lab, 200, instance="code-a", engine="vllm", config={"blocks": "10", "lora": "4"}),
        row(lab, SECONDS + 50, instance="chat-a", engine="vllm", config={"blocks": "99"}),
        row(lab, 0, instance="elsewhere", engine="vllm", config={"blocks": "1"}),
    ])  # fmt: skip
    lab.owner.insert("events", [
        event(lab, -3000, "instance_up", "chat-a", first="true"),
        event(lab, -2500, "contract_broken", "chat-a", kind="gone", what="old"),
        event(lab, -2400, "instance_up", "chat-a", first="true"),
        event(lab, -2000, "contract_broken", "chat-a", kind="absent", what="long ago"),
        event(lab, 100, "contract_broken", "chat-b", kind="unit", what="mended"),
        event(lab, 200, "contract_mended", "chat-b", kind="unit", what="mended"),
        event(lab, 300, "contract_broken", "chat-b", kind="frozen", what="steps"),
        event(lab, 400, "config_changed", "chat-b", blocks="10 → 20"),
        event(lab, 410, "note", "chat-b"),
        event(lab, SECONDS + 20, "contract_mended", "chat-b", kind="frozen", what="steps"),
    ])  # fmt: skip
    return lab


def selection(lab: Lab, **only: Any) -> Selection:
    return Selection(Window(start_of(lab), start_of(lab) + timedelta(seconds=SECONDS)), Filter(**only))


def test_an_instance_tells_its_role_and_where_its_agent_is(fleet: Lab):
    found = instances.ask(fleet.store, selection(fleet)).result.instances
    assert {(one.instance, one.role, one.node, one.version) for one in found} == {
        (name, "decode", "n1", "9.1") for name in FLEET
    }


def test_one_that_left_is_neither_up_nor_down_and_says_when_and_by_whom(lab: Lab):
    start = lab.start - timedelta(hours=9)
    last_up = {"gone": 1, "back": 1, "down": 0, "fell": 0, "here": 1, "later": 1}
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=second), "recording": "", "instance": name, "deployment": "come-and-go",
         "engine": "vllm", "model": "m", "up": up, "running": 1.0}
        for name, up in last_up.items() for second in (10, 20, 30) if name != "back" or second != 20
    ])  # fmt: skip
    lab.owner.insert("events", [
        {"time": start + timedelta(seconds=second), "recording": "", "event": event, "instance": name,
         "deployment": "come-and-go", "message": f"{name} {event}", "attributes": {"by": by}}
        for second, event, name, by in [
            (25, "target_found", "gone", "dns:chat"), (31, "target_left", "gone", "kubernetes"),
            (20, "target_left", "back", "dns:chat"), (33, "target_left", "fell", "configuration"),
            (60, "target_left", "later", "dns:chat"), (32, "instance_down", "here", "nobody"),
        ]
    ])  # fmt: skip
    window = Window(start, start + timedelta(seconds=60))
    answer = instances.ask(lab.store, Selection(window, Filter(deployment=("come-and-go",))))
    told = {one.instance: (one.up, one.left, one.left_by) for one in answer.result.instances}
    assert told == {
        "gone": (None, start + timedelta(seconds=31), "kubernetes"),
        "back": (True, None, ""),
        "down": (False, None, ""),
        "fell": (None, start + timedelta(seconds=33), "configuration"),
        "here": (True, None, ""),
        "later": (True, None, ""),
    }
    running = {one.instance: one.running for one in answer.result.instances}
    assert running == dict.fromkeys(last_up, 1.0) | {"gone": None, "fell": None}
    assert [one.instance for one in answer.result.instances] == ["down", "back", "here", "later", "fell", "gone"]
    cover = answer.coverage
    assert set(cover.instances_up) == {"back", "here", "later"}
    assert cover.instances_down == ("down",)
    assert set(cover.instances_left) == {"gone", "fell"}
    assert set(cover.sample_instances) == set(last_up)
    assert [note for note in answer.notes if note.startswith("Down")] == ["Down at the end of the window: down."]


def test_what_differs_among_replicas_of_one_engine_stands_first(fleet: Lab):
    answer = configuration.ask(fleet.store, selection(fleet))
    found = answer.result
    assert [(one.instance, one.deployment) for one in found.servers] == [
        ("chat-a", "chat"), ("chat-b", "chat"), ("chat-t", "chat"), ("code-a", "code"),
    ]  # fmt: skip
    assert found.servers[0].since == start_of(fleet) - timedelta(seconds=2000)
    told = {(one.deployment, one.name): (one.values, one.differs) for one in found.settings}
    assert told == {
        ("chat", "blocks"): ({"chat-a": "10", "chat-b": "20", "chat-t": "30"}, True),
        ("chat", "dtype"): ({"chat-a": "fp8", "chat-b": "fp8"}, False),
        ("chat", "same"): ({"chat-a": "1", "chat-b": "1"}, False),
        ("code", "blocks"): ({"code-a": "10"}, False),
        ("code", "lora"): ({"code-a": "4"}, False),
    }
    assert found.settings[0].name == "blocks"
    assert [(one.event, one.what) for one in found.changes if one.event == "config_changed"] == [
        ("config_changed", {"blocks": "10 → 20"})
    ]
    assert "note" not in {one.event for one in found.changes}


def test_filters_narrow_configuration_and_changes(fleet: Lab):
    found = configuration.ask(fleet.store, selection(fleet, deployment=("code",))).result
    assert [one.instance for one in found.servers] == ["code-a"]
    assert found.changes == []
    both = configuration.ask(fleet.store, selection(fleet, instance=("chat-a", "chat-b"))).result
    assert [one.differs for one in both.settings if one.name == "blocks"] == [True]


def test_a_replica_that_does_not_tell_a_setting_differs(fleet: Lab):
    later = Window(start_of(fleet), start_of(fleet) + timedelta(seconds=SECONDS + 100))
    found = configuration.ask(fleet.store, Selection(later, Filter(deployment=("chat",)))).result
    assert {one.name: one.differs for one in found.settings} == {"blocks": True, "dtype": True, "same": True}


def test_what_stood_broken_at_the_windows_end(fleet: Lab):
    answer = contract.ask(fleet.store, selection(fleet))
    assert [(one.instance, one.kind, one.what, one.known) for one in answer.result.broken] == [
        ("chat-a", "gone", "old", False),
        ("chat-a", "absent", "long ago", True),
        ("chat-b", "frozen", "steps", True),
    ]
    assert answer.result.broken[2].since == start_of(fleet) + timedelta(seconds=300)
    assert answer.result.broken[2].deployment == "chat"
    later = Window(start_of(fleet), start_of(fleet) + timedelta(seconds=SECONDS + 100))
    mended = contract.ask(fleet.store, Selection(later, Filter(instance=("chat-b",))))
    assert (mended.result.broken, mended.state) == ([], "value")
    empty = Window(start_of(fleet) - timedelta(days=200), start_of(fleet) - timedelta(days=199))
    assert contract.ask(fleet.store, Selection(empty)).state == "no_data"


def books(lab: Lab, process: str, at: float, since: float, **counts: float) -> list[dict[str, Any]]:
    """A report; ``rejected_malformed=3`` is 3 records rejected for that reason."""
    made = []
    for name, value in counts.items():
        fate, _, reason = name.partition("_")
        made.append({
            "ServiceName": "servescope-collector", "Value": value,
            "MetricName": f"servescope.collector.{'pending' if fate == 'pending' else 'records'}",
            "ResourceAttributes": {"service.name": "servescope-collector", "host.name": "n1", "process.pid": process},
            "Attributes": {"signal": "logs", "fate": fate, **({"reason": reason} if reason else {})},
            "TimeUnix": start_of(lab) + timedelta(seconds=at),
            "StartTimeUnix": start_of(lab) + timedelta(seconds=since),
        })  # fmt: skip
    return made


def test_the_books_are_those_of_the_newest_report_and_add_up(fleet: Lab):
    fleet.owner.insert("otel_metrics_sum", [
        *books(fleet, "1", 10, -50, received=90, stored=90),
        *books(fleet, "1", 40, -50, received=100, stored=80, rejected_malformed=3, dropped_repeat=7, pending=10),
        *books(fleet, "2", 60, 50, received=5, recovered=10, stored=12, pending=2),
        *books(fleet, "2", SECONDS + 9, 50, received=500, stored=500),
    ])  # fmt: skip
    answer = ledger.ask(fleet.store, selection(fleet))
    second, first = answer.result.books
    assert (first.collector, first.signal, first.since) == ("n1 · 1", "logs", start_of(fleet) - timedelta(seconds=50))
    assert (first.received, first.stored, first.rejected, first.dropped, first.pending) == (100, 80, 3, 7, 10)
    assert first.reasons == {"rejected:malformed": 3.0, "dropped:repeat": 7.0}
    assert (first.unaccounted, second.unaccounted) == (0, 1)
    assert second.recovered == 10


def test_where_a_server_runs_is_what_its_agent_said_last(fleet: Lab):
    def said(second: int, instance: str, event: str = "instance_config", **where: str) -> dict[str, Any]:
        resource = {f"k8s.{name}.name": value for name, value in where.items()} | {"host.name": "agents"}
        return {"Timestamp": start_of(fleet) + timedelta(seconds=second), "EventName": event, "ServiceName": "code",
                "ScopeName": "servescope.event", "Body": "",
                "ResourceAttributes": resource | {"service.instance.id": instance}}  # fmt: skip

    fleet.owner.insert("otel_logs", [
        said(-900, "code-a", pod="old", namespace="models", node="k1"),
        said(-60, "code-a", pod="new", namespace="models", node="k2"),
        said(-50, "code-a", "note", pod="odd"), said(SECONDS + 1, "code-a", pod="later"),
        said(-40, "chat-t", "target_found"),
    ])  # fmt: skip
    found = configuration.ask(fleet.store, selection(fleet)).result.servers
    assert {one.instance: (one.namespace, one.pod, one.node) for one in found} == {
        "chat-a": ("", "", ""), "chat-b": ("", "", ""), "chat-t": ("", "", "agents"), "code-a": ("models", "new", "k2"),
    }  # fmt: skip


def test_agents_are_who_sent_the_samples(fleet: Lab):
    fleet.owner.insert("otel_logs", [
        {"Timestamp": start_of(fleet) + timedelta(seconds=second), "EventName": name, "ScopeName": "servescope.event",
         "ServiceName": "", "ResourceAttributes": {"host.name": node}, "Body": "The agent started"}
        for second, name, node in ((-900, "agent_started", "n1"), (-90, "agent_started", "n1"),
                                   (-9, "agent_started", "n2"), (-9, "note", "n1"), (SECONDS, "agent_started", "n1"))
    ])  # fmt: skip
    # In a window of their own: the fleet's is other tests' as well.
    apart = start_of(fleet) - timedelta(days=13)
    fleet.owner.insert("engine_samples", [
        {"time": apart + timedelta(seconds=second), "recording": "", "instance": name, "deployment": "pods",
         "engine": "vllm", "model": "m", "up": 1, "node": "n9", "pod": pod, "sender_peer": "10.0.0.9"}
        for second in (1, 2) for name, pod in (("p:1", "p"), ("q:1", "q"))
    ])  # fmt: skip
    of = Selection(Window(apart, apart + timedelta(seconds=SECONDS)), Filter(deployment=("pods",)))
    (of_pods,) = ledger.ask(fleet.store, of).result.agents
    assert (of_pods.node, of_pods.pod, of_pods.instances, of_pods.samples) == ("n9", "", ["p:1", "q:1"], 4)
    (agent,) = ledger.ask(fleet.store, selection(fleet, deployment=("chat",))).result.agents
    assert (agent.node, agent.sender_key_id, agent.sender_peer) == ("n1", "k", "10.0.0.1")
    assert agent.instances == ["chat-a", "chat-b", "chat-t"]
    assert agent.samples == 3 * SECONDS / 10
    assert agent.started == start_of(fleet) - timedelta(seconds=90)


def test_one_whose_weights_are_off_the_gpu_is_asleep(lab: Lab):
    start = lab.start - timedelta(hours=11)
    told = {"woken": [1.0, 0.0], "put to sleep": [0.0, 1.0], "says nothing": [None, None]}
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=10 + place), "instance": name, "engine": "vllm", "model": "m", "up": 1,
         "other_signals": {} if asleep is None else {"asleep": asleep}}
        for name, states in told.items() for place, asleep in enumerate(states)
    ])  # fmt: skip
    found = instances.ask(lab.store, Selection(Window(start, start + timedelta(seconds=60)))).result.instances
    assert {one.instance: one.asleep for one in found} == {"woken": False, "put to sleep": True, "says nothing": None}
