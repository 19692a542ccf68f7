"""A server whose machine others fill is starved, though each of its processes waits for little."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.table import Host
from tests.analytics.test_causes_simulated import SINCE, UNTIL
from tests.kits.causes_sim import Server, evidence, steady, traffic

if TYPE_CHECKING:
    from analytics.causes.evidence import Cause

SECONDS = np.arange(1.0, UNTIL)
DURING = (SECONDS > 65) & (SECONDS <= 90)


def machine(
    own: float, others: float, *, wants: float = 0.7, cores: float = 2.0, waits: float = 0.02, measured: bool = True
) -> Host:
    """What two processes of a server and all others use while the fault lasts; before, 1.7 and 0.14 of two CPUs."""
    used, rest = np.where(DURING, own, 1.7), np.where(DURING, others, 0.14)
    wanted = np.where(DURING, wants, 0.6)
    return Host(
        time=SECONDS, busy=np.minimum((used + rest) / cores, 1.0) if measured else np.full(len(SECONDS), np.nan),
        cores=np.full(len(SECONDS), cores), delay_time=SECONDS, delay=np.full(len(SECONDS), waits),
        processes=[(SECONDS, used * 0.6, wanted * 0.7), (SECONDS, used * 0.4, wanted * 0.3)],
    )  # fmt: skip


def told(host: Host, *, slower: float = 2.0, crowd: float = 0.0) -> list[Cause]:
    chance = random.Random(7)
    server = Server(slower=lambda at: slower if 65 < at < 90 else 1.0)
    asks = steady(chance, UNTIL)
    asks += traffic(chance, 65, 90, crowd, "hooli") if crowd else []
    server.serve(asks, UNTIL, chance)
    seen = evidence([server], asks, SINCE)
    seen.hosts["sim-0"] = host
    account = account_of(seen)
    return causes_of(account, account.asked)


def test_a_server_that_others_take_the_cpu_from_is_starved():
    first = told(machine(1.38, 0.62, wants=1.2))[0]
    assert (first.cause, first.who) == ("cpu_starved", {"instance": "sim-0"})
    assert first.share > 0.8
    (said,) = [one for one in first.evidence if one.startswith("sim-0: other processes used 0.6")]
    assert said.endswith("0.14 and 1.7 when all is well.")


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(machine(1.38, 0.62, cores=16.0, wants=1.2), id="the machine has room"),
        pytest.param(machine(1.66, 0.34, wants=1.2), id="it has what it used to have"),
        pytest.param(machine(1.1, 0.9, wants=0.2), id="it wants less, and others take what is left"),
        pytest.param(machine(1.38, 0.62, wants=1.2, measured=False), id="nobody measured the machine"),
        pytest.param(Host(), id="nothing was measured"),
    ],
)
def test_what_others_use_alone_starves_nobody(host: Host):
    assert "cpu_starved" not in {one.cause for one in told(host)}


def test_a_crowd_keeps_its_own_name_where_others_are_busier_with_it():
    found = told(machine(1.62, 0.38, wants=1.3), slower=1.0, crowd=30.0)
    assert "cpu_starved" not in {one.cause for one in found}
    assert found[0].who.get("tenant") == "hooli", found


def test_a_machine_that_is_full_costs_nothing_where_requests_are_as_fast_as_ever():
    assert told(machine(1.38, 0.62, wants=1.2), slower=1.0) == []
