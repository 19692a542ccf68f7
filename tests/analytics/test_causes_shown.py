"""What shows a cause: the figures that tell it from its neighbours, beside what they are when all is well."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.table import PHASE, Event, Host
from tests.kits.causes_sim import Server, evidence, steady, traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.evidence import Cause
    from analytics.causes.table import Evidence
    from tests.kits.causes_sim import Ask

SINCE, UNTIL = 60.0, 100.0
SECONDS = np.arange(1.0, UNTIL + 1)
DURING = (SECONDS > 65) & (SECONDS < 90)


def told(
    extra: Callable[[random.Random], list[Ask]] = lambda _: [],
    rate: float = 4.0,
    events: tuple[Event, ...] = (),
    done: Callable[[Evidence], None] = lambda _: None,
    **server: Any,
) -> dict[str, Cause]:
    """Causes of a window from second 60 on of one server, by name; ``done`` is done to what is known of it."""
    chance = random.Random(4)
    one = Server(**server)
    asks = steady(chance, UNTIL, rate) + extra(chance)
    one.serve(asks, UNTIL, chance)
    known = evidence([one], asks, SINCE, events=events)
    done(known)
    account = account_of(known)
    return {cause.cause: cause for cause in causes_of(account, account.asked)}


def starved(known: Evidence) -> None:
    known.hosts["sim-0"] = Host(delay_time=SECONDS, delay=np.where(DURING, 0.6, 0.01))


def busy_front(known: Evidence, busy: float = 0.97) -> None:
    requests = known.requests
    hit = (requests.start > 65) & (requests.start < 88)
    requests.phases[hit, PHASE["frontend"]] += 0.5
    requests.e2e[hit] += 0.5
    known.hosts["sim-0"] = Host(front_time=SECONDS, front=np.where(DURING, busy, 0.3))


def test_a_starved_process_is_shown_by_its_share_without_a_cpu():
    found = told(slower=lambda at: 2.5 if 65 < at < 90 else 1.0, done=starved)
    assert "sim-0: without a CPU that it wanted 60% of the time, 1% when all is well." in found["cpu_starved"].evidence


def test_a_front_end_process_without_room_is_told_and_one_with_room_is_not():
    found = told(done=busy_front)["frontend_cpu"]
    assert (found.phase, found.driver, found.who) == ("frontend", "frontend_process", {"instance": "sim-0"})
    assert "sim-0: what takes its requests used 97% of a CPU, 30% when all is well." in found.evidence
    assert not told(done=lambda known: busy_front(known, 0.5))


def test_preemptions_are_charged_beside_the_cache_that_they_come_of():
    found = told(
        lambda chance: traffic(chance, 65, 90, 4, "hooli", prompt=(20, 60), output=(600, 900), cached=0.0),
        rate=2.0,
        blocks=400,
    )
    assert found["preemption"].phase == "decode"
    assert found["preemption"].who == {"instance": "sim-0", "tenant": "hooli"}
    assert any("preemptions" in sentence for sentence in found["preemption"].evidence)


def test_longer_prompts_are_their_tenants_and_shown_in_tokens():
    def longer(chance: random.Random) -> list[Ask]:
        before = traffic(chance, 0, SINCE, 2, "acme", prompt=(200, 300), output=(5, 9), cached=0.0)
        return before + traffic(chance, SINCE, UNTIL, 2, "acme", prompt=(900, 1200), output=(5, 9), cached=0.0)

    found = told(longer, rate=1.0, token=0.0002)["longer_prompts"]
    assert (found.phase, found.stage, found.who["tenant"]) == ("prefill", "work", "acme")
    (tokens,) = (sentence for sentence in found.evidence if "prompt tokens to compute" in sentence)
    own, usual = (float(word) for word in tokens.split() if word.isdecimal())
    assert own > 2 * usual > 0


@pytest.mark.parametrize("how", ["oom", ""])
def test_failures_are_shown_by_how_most_of_them_failed(how: str):
    def failing(known: Evidence) -> None:
        requests = known.requests
        hit = np.flatnonzero((requests.start > 70) & (requests.start < 90))[::2]
        requests.failed[hit], requests.whole[hit] = True, False
        requests.e2e[hit] += 2.0
        requests.phases[hit, PHASE["decode"]] += 2.0
        for column, name in (("outcome", "server_error"), ("error", how)):
            codes = getattr(requests, column).codes.copy()
            codes[hit] = 1
            object.__setattr__(
                requests, column, type(requests.outcome)(codes, ("ok" if column == "outcome" else " ", name))
            )

    (shown,) = (sentence for sentence in told(done=failing)["upstream_error"].evidence if "requests failed" in sentence)
    assert shown.endswith(f"of them by {f'server_error {how}'.strip()}.")


def test_a_restart_is_shown_by_how_long_it_was_away():
    def away(known: Evidence) -> None:
        samples = known.samples["sim-0"]
        samples.up[(samples.time > 70) & (samples.time < 76)] = False

    begun = (Event(76.5, "instance_restarted", "sim-0", "", ""),)
    found = told(stops=((70.0, 76.0),), events=begun, done=away)["restart"]
    (shown,) = (sentence for sentence in found.evidence if "began anew" in sentence)
    assert 5 < float(shown.split()[-2]) < 9
