"""What a job keeps of causes: references and noise that accounts use, charges that sum, and twice is once."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes import summed
from analytics.causes.account import account_of
from analytics.causes.advice import SHARED
from analytics.causes.due import CATCH_UP_SECONDS, LATE_SECONDS, PERIOD_SECONDS, due
from analytics.causes.evidence import causes_of
from analytics.causes.keeping import keep
from analytics.causes.kept import Kept, Noise, kept_for
from analytics.causes.reference import calm_fits
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.kits.causes_sim import Server, evidence, steady, traffic
from tests.kits.causes_store import stored
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

START = datetime.fromtimestamp(1_790_000_100, UTC)
"""A multiple of a period."""
PERIODS = 4


def simulated(
    seed: int,
    since: float,
    until: float,
    *,
    kept: Kept | None = None,
    rate: float = 8.0,
    begins: float = 0.0,
    **server: Any,
) -> Any:
    """An account of a window; what arrived before ``begins`` is not known."""
    chance = random.Random(seed)
    one = Server(**server)
    asks = steady(chance, until, rate)
    one.serve(asks, until, chance)
    return account_of(evidence([one], [ask for ask in asks if ask.at >= begins], since), kept)


def kept_of(seed: int, until: float = 300.0) -> Kept:
    """References of a time before, by another run of the same server."""
    requests = simulated(seed, until - 1, until).requests
    fits = calm_fits(requests, Kept())
    return Kept({fit.kind: fit for fit in fits})


def test_a_few_requests_have_a_reference_once_one_is_kept():
    few = {"since": 100.0, "until": 104.0, "begins": 100.0, "rate": 1.0, "slower": lambda t: 3.0 if t > 90 else 1.0}
    alone, known = simulated(5, **few), simulated(5, **few, kept=kept_of(6))
    assert 0 < len(alone.requests) < 8
    assert not alone.asked.any()
    assert known.asked.all()
    took, usual = known.requests.e2e.sum(), known.reference.expected.sum()
    assert took - usual > 0.5 * usual
    assert known.ledger.excess.sum() == pytest.approx(took - usual)


def test_a_fault_of_all_the_time_that_is_known_is_not_taken_for_calm():
    slow = {"since": 60.0, "until": 105.0, "slower": lambda _: 3.0}
    alone, known = simulated(3, **slow), simulated(3, **slow, kept=kept_of(4))
    assert abs(alone.ledger.excess[alone.asked].sum()) < 0.3 * alone.requests.e2e[alone.asked].sum()
    assert known.ledger.excess[known.asked].sum() > 0.5 * known.requests.e2e[known.asked].sum()
    assert not known.reference.calm.any()


def test_quiet_windows_stay_quiet_beside_what_is_kept():
    kept = kept_of(40)
    for seed in range(41, 46):
        account = simulated(seed, 60.0, 105.0, kept=kept)
        assert causes_of(account, account.asked) == []
        usual = account.reference.expected[account.asked].sum()
        assert abs(account.ledger.excess[account.asked].sum()) < 0.3 * usual


def test_errors_of_a_fit_are_what_fits_differ_by():
    slopes, tokens = [], []
    for seed in range(12):
        (fit,) = kept_of(60 + seed, 105.0).fits.values()
        slopes.append((fit.prefill_token, fit.prefill_token_error))
        tokens.append((fit.output_token, fit.output_token_error))
    for found in (np.array(slopes), np.array(tokens)):
        assert 1 / 3 < found[:, 0].std() / found[:, 1].mean() < 3


def test_noise_of_two_is_that_of_all_their_blocks():
    chance = np.random.default_rng(1)
    one, other = chance.random(7), 3 + chance.random(20)
    both, joined = Noise.of(np.concatenate([one, other])), Noise.of(one).with_(Noise.of(other))
    assert joined.blocks == both.blocks
    assert (joined.mean, joined.deviation) == pytest.approx((both.mean, both.deviation))
    assert Noise.of(np.empty(0)).with_(both) == both
    assert both.at_most(5) == Noise(5, both.mean, both.deviation)


def refused(number: int) -> dict[str, object]:
    """The edge's record of a request that a full queue refused; three of five are of one tenant."""
    at = START + timedelta(seconds=10 * number + 100)
    return {
        "time": at, "key": (int(at.timestamp() * 1000) << 22) | number, "trace_id": f"refused{number:09d}",
        "tenant": "hooli" if number < 3 else f"t{number}", "model": "m", "instance": "kept-0", "deployment": "kept",
        "operation": "text_completion", "status": 503, "outcome": "rejected", "error_type": "queue_full",
        "e2e_seconds": 0.001, "has_edge": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        chance = random.Random(17)
        server = Server("kept-0", places=16)
        until = PERIODS * PERIOD_SECONDS - 10.0
        asks = steady(chance, until, 4.0, "kept-0")
        flood = traffic(chance, until - 200, until - 100, 10, "hooli", output=(100, 200), instance="kept-0")
        server.serve(asks + flood, until, chance)
        rows = [
            stored(one, number, START, "kept") | {"engine_tenant": one.tenant}
            for number, one in enumerate(asks + flood)
        ]
        made.insert("requests_t", rows)
        made.insert("requests_t", [refused(number) for number in range(5)])
        assert due(made, START.timestamp()) is None
        first = START.timestamp() + PERIOD_SECONDS
        assert due(made, now(PERIODS - 1), after=first) == first + PERIOD_SECONDS
        assert due(made, START.timestamp() + CATCH_UP_SECONDS + 3 * PERIOD_SECONDS) == first + 3 * PERIOD_SECONDS
        for number in range(PERIODS):
            until = due(made, now(PERIODS - 1))
            assert until == first + number * PERIOD_SECONDS
            assert keep(made, until) > 0
        yield made


def now(period: int) -> float:
    """When the period of a number is due."""
    return START.timestamp() + (period + 1) * PERIOD_SECONDS + LATE_SECONDS


def everything(store: Store, table: str) -> list[dict[str, Any]]:
    return store.rows(f"SELECT * EXCEPT computed_at FROM {table} FINAL ORDER BY ALL")


def test_when_all_periods_are_kept_none_is_due_and_twice_is_once(store: Store):
    assert due(store, now(PERIODS - 1)) is None
    tables = ("cause_references", "cause_noise", "cause_seconds")
    before = {table: everything(store, table) for table in tables}
    assert all(before.values())
    keep(store, START.timestamp() + PERIODS * PERIOD_SECONDS)
    assert {table: everything(store, table) for table in tables} == before


def test_kept_charges_and_what_is_unexplained_are_the_excess_of_the_account(store: Store):
    begin = START + timedelta(seconds=(PERIODS - 1) * PERIOD_SECONDS)
    window = Window(begin, begin + timedelta(seconds=PERIOD_SECONDS))
    answer = causes.ask(store, Selection(window, Filter(recording="exclude")))
    told = answer.result
    assert any("kept before the window" in note for note in answer.notes)
    assert told.reference[0].until == begin
    assert told.reference[0].since is not None
    rows = store.rows("SELECT * FROM cause_seconds FINAL WHERE time = {time:DateTime64(3)}", {"time": begin})
    sums = {
        name: sum(row[name] for row in rows if not row["cause"])
        for name in ("requests", "seconds", "reference_seconds")
    }
    assert sums["requests"] == told.requests
    assert sums["seconds"] == pytest.approx(told.excess_seconds)
    assert sums["reference_seconds"] == pytest.approx(told.reference_seconds)
    assert told.causes[0].cause == "queue_saturated"
    for cause in told.causes:
        mine = [row for row in rows if row["cause"] == cause.cause]
        assert sum(row["seconds"] for row in mine) == pytest.approx(cause.seconds)
        assert {row["by_instance"] for row in mine} == {cause.who.get("instance", "")}
        assert {row["driver"] for row in mine} == {cause.driver}
    by_tenant = causes.ask(store, Selection(window, Filter(tenant=("acme",), recording="exclude"))).result
    acme = sum(row["seconds"] for row in rows if row["tenant"] == "acme" and row["cause"] == "queue_saturated")
    assert acme == pytest.approx(next(one.seconds for one in by_tenant.causes if one.cause == "queue_saturated"))


def test_recordings_alone_have_no_kept_reference_and_one_from_later_is_none(store: Store):
    begin = START + timedelta(seconds=2 * PERIOD_SECONDS)
    window = Window(begin, begin + timedelta(seconds=60))
    assert kept_for(Inquiry(store, Selection(window, Filter(recording="only")))).fits == {}
    (fit,) = kept_for(Inquiry(store, Selection(window))).fits.values()
    assert fit.until == begin
    assert kept_for(Inquiry(store, Selection(Window(START, begin)))).fits == {}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Window:
    monkeypatch.setattr(summed, "LONG_SECONDS", PERIODS * PERIOD_SECONDS)
    return Window(START, START + timedelta(seconds=PERIODS * PERIOD_SECONDS))


def of_whom(store: Store, window: Window, **narrowed: tuple[str, ...]) -> causes.Causes:
    return causes.ask(store, Selection(window, Filter(**narrowed, recording="exclude"))).result  # type: ignore[arg-type]


def test_a_long_window_is_the_sum_of_its_periods_and_of_its_tenants(store: Store, long: Window):
    answer = causes.ask(store, Selection(long, Filter(recording="exclude")))
    whole = answer.result
    assert f"Summed of {PERIODS} periods" in answer.notes[0]
    assert "(chains) is told of windows shorter" in answer.notes[1]
    assert whole.chains == []
    rows = store.rows("SELECT * FROM cause_seconds FINAL")
    assert whole.requests == sum(row["requests"] for row in rows if not row["cause"])
    assert whole.excess_seconds == pytest.approx(sum(row["seconds"] for row in rows if not row["cause"]))
    charged = sum(one.seconds for one in whole.causes)
    assert charged == pytest.approx(sum(row["seconds"] for row in rows if row["cause"]), rel=0.02)
    assert charged + whole.unexplained_seconds == pytest.approx(whole.excess_seconds)
    last = Window(long.end - timedelta(seconds=PERIOD_SECONDS), long.end)
    of_last = of_whom(store, last)  # the only one with a fault
    assert whole.causes[0].cause == of_last.causes[0].cause == "queue_saturated"
    assert whole.causes[0].seconds == pytest.approx(of_last.causes[0].seconds)
    assert whole.causes[0].requests == of_last.causes[0].requests
    assert whole.causes[0].who == of_last.causes[0].who
    assert whole.causes[0].phase == of_last.causes[0].phase
    parts = [of_whom(store, long, tenant=(name,)) for name in ("acme", "globex", "initech", "hooli", "t3", "t4")]
    for name in ("requests", "excess_seconds", "reference_seconds"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name))
    lost = [one.seconds for part in parts for one in part.causes if one.cause == "queue_saturated"]
    assert sum(lost) == pytest.approx(whole.causes[0].seconds)
    (failed,) = whole.failures
    assert (failed.outcome, failed.error_type, failed.requests) == ("rejected", "queue_full", 5)
    assert failed.who == {"tenant": "hooli", "instance": "kept-0"}
    assert failed.since_seconds == pytest.approx(100)
    shared = sum(one.seconds for one in whole.causes if one.cause in SHARED)
    harm = whole.harm
    assert sum(pair.seconds for pair in harm.pairs) + harm.nobodys_seconds == pytest.approx(shared, rel=0.02)


def test_of_a_period_that_was_worked_out_again_only_the_last_account_counts(store: Store, long: Window):
    before = of_whom(store, long)
    (row,) = store.rows("SELECT * FROM cause_seconds FINAL WHERE cause = 'queue_saturated' AND phase = 'queue' LIMIT 1")
    earlier = row["computed_at"] - timedelta(seconds=60)
    store.insert("cause_seconds", [row | {"cause": "engine_frozen", "seconds": 1e6, "computed_at": earlier}])
    try:
        again = of_whom(store, long)
        # a store adds up in any order
        assert again.excess_seconds == pytest.approx(before.excess_seconds)
        assert [one.cause for one in again.causes] == [one.cause for one in before.causes]
        assert [one.seconds for one in again.causes] == pytest.approx([one.seconds for one in before.causes])
    finally:
        store.command("DELETE FROM cause_seconds WHERE cause = 'engine_frozen'")


def test_what_is_short_or_of_single_requests_or_little_kept_has_an_account_of_its_own(store: Store, long: Window):
    def notes(selection: Selection) -> str:
        return " ".join(causes.ask(store, selection).notes)

    assert "Summed" in notes(Selection(long))
    assert "Summed" not in notes(Selection(Window(START, long.end - timedelta(seconds=1))))
    assert "Summed" not in notes(Selection(long, outcome=("ok",)))
    assert "Summed" not in notes(Selection(long, Filter(version=("1",))))
    much_later = Window(START + timedelta(seconds=(PERIODS - 1) * PERIOD_SECONDS + 1), long.end + timedelta(hours=1))
    assert "Summed" not in notes(Selection(much_later))


def test_quiet_minutes_stay_quiet_beside_what_is_kept_of_references_and_noise(store: Store):
    noise = store.rows("SELECT * FROM cause_noise FINAL WHERE deployment = 'kept'")
    assert any(row["blocks"] > 1 for row in noise)
    for second in range(PERIOD_SECONDS, (PERIODS - 1) * PERIOD_SECONDS, 60):
        begin = START + timedelta(seconds=second)
        answer = causes.ask(store, Selection(Window(begin, begin + timedelta(seconds=60))))
        assert answer.result.causes == [], second
        assert answer.result.requests > 0


@pytest.mark.parametrize("operation", ["", "text_completion"])
def test_a_period_of_which_nothing_can_be_said_is_due_once(store_server: StoreServer, operation: str):
    with fresh_store(store_server) as made:
        made.insert("requests_t", [refused(0) | {"operation": operation}])
        until = due(made, now(0))
        assert until == START.timestamp() + PERIOD_SECONDS
        assert keep(made, until) == 0
        assert due(made, now(0)) is None
        (row,) = made.rows("SELECT * FROM cause_seconds FINAL")
        assert (row["requests"], row["seconds"], row["cause"]) == (0, 0, "")
