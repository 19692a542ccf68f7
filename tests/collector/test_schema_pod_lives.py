"""A pod that has had several servers: its GPUs are those of who was up while it had them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.otlp.encode import attributes, encode_event
from agent.target import Place, Target
from tests.kits.gpu_pods import WORKS, Node, at, ns, up, works
from tests.kits.schema_tools import framed, fresh_store, token

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
    for table in ("gpu_pods_t", "pod_servers_t", "instance_lives_t", "events"):
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def left(store: Store, instance: str, seconds: float) -> None:
    """Its configuration names a server no longer."""
    body = encode_event(attributes(Target(instance, "chat"), Place()), "target_left", "It left", ns(seconds))
    store.insert_segment("land_logs", framed(body), token())


def test_a_server_that_is_renamed_while_its_pod_runs_has_its_gpu_under_each_name(store: Store):
    up(store, "old", "chat-0", seconds=-50)
    left(store, "old", 60)
    up(store, "new", "chat-0", seconds=61)
    node = Node(store)
    for seconds in (0, 40, 80, 120):
        node.look(seconds, ("GPU-1", "chat-0"))
    assert sorted(tuple(row.values()) for row in store.rows(WORKS)) == [
        ("new", "GPU-1", "n1", "", "", at(61), at(120)),
        ("old", "GPU-1", "n1", "", "", at(0), at(60)),
    ]


def test_a_pod_that_comes_back_with_another_server_is_that_ones(store: Store):
    up(store, "old", "chat-0", seconds=-50, down=20)
    up(store, "new", "chat-0", seconds=110)
    node = Node(store)
    for seconds in (0, 15):
        node.look(seconds, ("GPU-1", "chat-0"))
    node.look(30)
    for seconds in (100, 130):
        node.look(seconds, ("GPU-1", "chat-0"))
    assert sorted(tuple(row.values()) for row in store.rows(WORKS)) == [
        ("new", "GPU-1", "n1", "", "", at(100), at(130)),
        ("old", "GPU-1", "n1", "", "", at(0), at(15)),
    ]


def test_servers_beside_each_other_are_not_named_for_one_that_fails(store: Store):
    up(store, "prefill", "both", seconds=1)
    up(store, "decode", "both", seconds=2, down=30)
    up(store, "decode", "both", seconds=60)
    node = Node(store)
    for seconds in (0, 45, 90):
        node.look(seconds, ("GPU-1", "both"))
    assert works(store) == []


def test_a_server_of_which_no_beginning_is_known_was_always_there(store: Store):
    up(store, "prefill", "both", seconds=1)
    up(store, "decode", "both", seconds=2)
    store.command("ALTER TABLE instance_lives_t DELETE WHERE instance = 'prefill'", settings={"mutations_sync": 2})
    node = Node(store)
    node.look(0, ("GPU-1", "both"))
    node.look(10, ("GPU-1", "both"))
    assert works(store) == []
    left(store, "prefill", 5)
    assert works(store) == [], "until its end, the first that is known"
    node.look(30)
    node.look(60, ("GPU-2", "both"))
    assert works(store) == [("decode", "GPU-2")]
