"""A GPU finds the server in whose pod it is, whichever agents told of the one and of the other."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import gpus
from analytics.selection import Selection
from analytics.window import Window
from tests.kits.gpu_pods import WORKS, Node, at, up, works
from tests.kits.schema_tools import framed, fresh_store, metrics, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in ("gpu_pods_t", "pod_servers_t", "instance_gpus_t", "gpu_samples", "events", "engine_samples"):
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


@pytest.mark.parametrize("first", ["server", "gpu"])
def test_a_gpu_is_the_servers_in_whose_pod_it_is(store: Store, first: str):
    node = Node(store)
    if first == "server":
        up(store, "chat-0", "chat-0")
    node.look(0, ("GPU-1", "chat-0"), ("GPU-2", "chat-0"), ("GPU-3", "a-strangers"))
    node.look(15, ("GPU-1", "chat-0"), ("GPU-2", "chat-0"))
    if first == "gpu":
        up(store, "chat-0", "chat-0")
    assert [tuple(row.values()) for row in store.rows(WORKS)] == [
        ("chat-0", "GPU-1", "n1", "", "", at(0), at(15)),
        ("chat-0", "GPU-2", "n1", "", "", at(0), at(15)),
    ]
    assert store.rows("SELECT * FROM gpu_samples") == [], "a kubelet's word is no sample"


def test_the_page_shows_the_server_beside_the_gpu(store: Store):
    up(store, "chat-0", "chat-0")
    Node(store).look(2, ("GPU-1", "chat-0"))
    whose = {"hw.id": "GPU-1", "hw.name": "H100", "hw.index": "0", "host.name": "n1"}
    sampled = metrics("servescope.gpu", {"hw.gpu.utilization": 0.5}, None, whose)
    store.insert_segment("land_metrics", framed(sampled), token())
    window = Window(at(-30), at(30))
    (row,) = gpus.ask(store, Selection(window)).result.gpus
    assert (row.gpu, row.instances, row.node, row.ranks) == ("GPU-1", ["chat-0"], "n1", [])
    assert row.activity_ratio == 0.5


def test_pods_that_share_a_gpu_all_work_on_it(store: Store):
    for name in ("chat-0", "chat-1"):
        up(store, name, name)
    Node(store).look(0, ("GPU-1", "chat-0"), ("GPU-1", "chat-1"), ("MIG-1", "chat-1"))
    assert works(store) == [("chat-0", "GPU-1"), ("chat-1", "GPU-1"), ("chat-1", "MIG-1")]


def test_who_is_not_alone_in_his_pod_is_not_named(store: Store):
    up(store, "prefill", "both")
    up(store, "decode", "both")
    Node(store).look(0, ("GPU-1", "both"))
    assert works(store) == []


def test_a_pod_of_that_name_elsewhere_is_another(store: Store):
    up(store, "theirs", "chat-0", "other")
    up(store, "unsaid", "chat-1", "", node="n1")
    up(store, "far", "chat-2", "", node="n2")
    Node(store).look(0, ("GPU-1", "chat-0"), ("GPU-2", "chat-1"), ("GPU-3", "chat-2"))
    assert works(store) == [("unsaid", "GPU-2")], "without a namespace the node must be the same"


def test_a_server_of_an_agent_elsewhere_is_known_by_its_namespace(store: Store):
    up(store, "chat-0", "chat-0", node="named-otherwise")
    Node(store).look(0, ("GPU-1", "chat-0"))
    assert works(store) == [("chat-0", "GPU-1")]


def test_time_without_the_gpu_is_not_claimed(store: Store):
    up(store, "chat-0", "chat-0")
    node = Node(store)
    for seconds in (0, 15):
        node.look(seconds, ("GPU-1", "chat-0"))
    for seconds in (30, 45):
        node.look(seconds, ("GPU-2", "chat-0"))
    for seconds in (60, 75.25):
        node.look(seconds, ("GPU-1", "chat-0"))
    store.command("OPTIMIZE TABLE gpu_pods_t FINAL")
    assert [tuple(row.values())[-2:] for row in store.rows(WORKS)] == [
        (at(0), at(15)),
        (at(60), at(75.25)),
        (at(30), at(45)),
    ]


def test_a_recording_stays_by_itself(store: Store):
    up(store, "chat-0", "chat-0", **{"servescope.recording": "played"})
    Node(store).look(0, ("GPU-1", "chat-0"))
    assert works(store) == []


def test_a_tenants_word_is_of_its_own_gpus_and_the_fleets(store: Store):
    now = {"received_at": datetime.now(UTC).replace(microsecond=0)}
    server = {"namespace": "models", "node": "n1", "tenant": "acme"} | now
    held = {"namespace": "models", "node": "n1", "from": at(0), "to": at(1)} | now
    store.insert("pod_servers_t", [{"pod": "chat-0", "instance": "chat-0"} | server])
    store.insert("gpu_pods_t", [
        {"gpu": f"GPU-{tenant}", "pod": "chat-0", "tenant": tenant} | held for tenant in ("", "acme", "other")
    ])  # fmt: skip
    assert works(store) == [("chat-0", "GPU-"), ("chat-0", "GPU-acme")]


@pytest.mark.parametrize("held", [math.nan, math.inf, -5.0, 1e300])
def test_a_time_that_cannot_be_is_none(store: Store, held: float):
    up(store, "chat-0", "chat-0")
    whose = {"hw.id": "GPU-1", "k8s.pod.name": "chat-0", "k8s.namespace.name": "models", "host.name": "n1"}
    body = metrics("servescope.gpu", {"pod_held_seconds": held}, None, whose)
    store.insert_segment("land_metrics", framed(body), token())
    (row,) = store.rows(WORKS)
    assert (row["from"], row["to"]) == (at(0), at(0))


def test_processes_are_there_as_before(store: Store):
    process = {"hw.id": "GPU-1", "process.pid": "7", "service.instance.id": "vllm-a", "host.name": "n1"}
    body = metrics("servescope.gpu", {"process_present": 1.0}, None, process)
    store.insert_segment("land_metrics", framed(body), token())
    (row,) = store.rows(WORKS)
    assert (row["instance"], row["process_pid"], row["to"] - row["from"]) == ("vllm-a", "7", timedelta(0))


def test_an_exporters_page_tells_what_a_kubelet_would(store: Store):
    up(store, "chat-0", "chat-0")
    up(store, "chat-1", "chat-1")
    node = Node(store)
    node.page(0, ("GPU-1", "chat-0"), ("GPU-2", "chat-0"), ("GPU-2", "chat-1"))
    node.page(5, ("GPU-1", "chat-0"), ("GPU-2", "chat-0"))
    assert [tuple(row.values()) for row in store.rows(WORKS)] == [
        ("chat-0", "GPU-1", "n1", "", "", at(0), at(5)),
        ("chat-0", "GPU-2", "n1", "", "", at(0), at(5)),
        ("chat-1", "GPU-2", "n1", "", "", at(0), at(0)),
    ]


def test_where_page_and_kubelet_tell_there_is_one_row(store: Store):
    up(store, "chat-0", "chat-0")
    node = Node(store)
    node.page(0, ("GPU-1", "chat-0"))
    node.look(0.5, ("GPU-1", "chat-0"))
    node.page(5, ("GPU-1", "chat-0"))
    node.look(15.5, ("GPU-1", "chat-0"))
    (row,) = store.rows(WORKS)
    assert (row["from"], row["to"]) == (at(0), at(15.5))
