"""Rules that can never fire, or never be over, are refused by line and field, with what mends them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine_table import tables
from alerts.measure.signals import SAMPLE_SIGNALS, sight_of
from alerts.rules.file import RulesError, check, parse
from alerts.rules.model import all_rules

if TYPE_CHECKING:
    from pathlib import Path


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(RulesError) as caught:
        parse(text, "rules.yaml")
    return caught.value.faults


def slo(text: str) -> str:
    return f"slos:\n  - {{name: a, {text}}}"


def rule(text: str) -> str:
    return f"rules:\n  - {{name: a, {text}}}"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        # labels that are not there
        ("filter: {tenant: acme}, when: {kind: signal, signal: waiting, above: 2}", "filter.tenant", "no tenant"),
        ("filter: {tenant: [a, b]}, when: {kind: signal, signal: up, below: 1}", "filter.tenant", "no tenant"),
        ("filter: {tenant: acme}, when: {kind: wedged}", "filter.tenant", "no tenant"),
        ("filter: {tenant: acme}, when: {kind: silent}", "filter.tenant", "no tenant"),
        ("filter: {model: m}, when: {kind: silent}", "filter.model", "no model"),
        ("filter: {model: m}, when: {kind: contract}", "filter.model", "no model"),
        (
            "filter: {tenant: a}, when: {kind: share, above: 0.1, sli: {kind: availability, source: metrics}}",
            "filter.tenant",
            "no tenant",
        ),
        (
            "when: {kind: share, above: 0.1, by: [tenant], sli: {kind: availability, source: metrics}}",
            "when.by",
            "no tenant",
        ),
        # signals that an engine does not show
        (
            "filter: {engine: llamacpp}, when: {kind: signal, signal: preemptions_per_second, above: 2}",
            "filter.engine",
            "use ",
        ),
        (
            "filter: {engine: llama*}, when: {kind: signal, signal: inferences_per_second, above: 0.5}",
            "filter.engine",
            "llamacpp shows no inferences_per_second",
        ),
        (
            "filter: {engine: llamacpp}, when: {kind: contract, breaches: [absent]}",
            "filter.engine",
            "llamacpp shows no contract by version",
        ),
        ("when: {kind: contract, breaches: []}", "when.breaches", "at least 1"),
        *(
            (f"filter: {{engine: {engine}}}, when: {{kind: wedged}}", "filter.engine", "use llamacpp, lmdeploy, nim")
            for engine in ("tgi", "infinity", "lmcache", "[tei, litellm]", "sglang_*")
        ),
        # engines that are none
        *(
            (f"filter: {{engine: {engine}}}, when: {{{when}}}", "filter.engine", f"no engine is called {strange}")
            for engine, strange in (("vlm", "vlm"), ("vLLM", "vLLM"), ("[triton, sglnag*]", "sglnag*"))
            for when in (
                "kind: signal, signal: waiting, above: 2",
                "kind: wedged",
                "kind: silent",
                "kind: contract",
                "kind: share, above: 0.1, sli: {kind: latency, threshold_seconds: 1, source: metrics}",
            )
        ),
        # ranges
        ("when: {kind: signal, signal: kv_cache_usage_ratio, above: 90}", "when.above", "write 0.9 for 90 %"),
        ("when: {kind: signal, signal: kv_cache_usage_ratio, above: 1}", "when.above", "between 0 and 1"),
        ("when: {kind: signal, signal: kv_cache_usage_ratio, below: 0}", "when.below", "never holds"),
        ("when: {kind: signal, signal: kv_cache_usage_ratio, below: 50}", "when.below", "always holds"),
        ("when: {kind: signal, signal: prefix_cache_hit_ratio, above: 2}", "when.above", "never holds"),
        ("when: {kind: signal, signal: prefix_cache_hit_ratio, below: -0.1}", "when.below", "never holds"),
        ("when: {kind: signal, signal: up, above: 1}", "when.above", "between 0 and 1"),
        ("when: {kind: signal, signal: up, below: 0}", "when.below", "never holds"),
        ("when: {kind: signal, signal: up, below: 1.5}", "when.below", "always holds"),
        ("when: {kind: signal, signal: waiting, below: -5}", "when.below", "waiting is never below 0"),
        ("when: {kind: signal, signal: waiting, below: 0}", "when.below", "never holds"),
        ("when: {kind: signal, signal: running, above: -1}", "when.above", "always holds"),
        ("when: {kind: signal, signal: preemptions_per_second, below: 0}", "when.below", "never holds"),
        ("when: {kind: signal, signal: scrape_seconds, below: 0}", "when.below", "never holds"),
        ("when: {kind: signal, signal: waiting, above: .nan}", "when.above", "nothing is ever above nan"),
        ("when: {kind: signal, signal: waiting, above: .inf}", "when.above", "nothing is ever above inf"),
        ("when: {kind: signal, signal: waiting, below: -.inf}", "when.below", "nothing is ever below -inf"),
        ("when: {kind: share, above: .nan}", "when.above", "must be a share"),
        ("when: {kind: share, above: 5}", "when.above", "write 0.05 for 5 %"),
        ("when: {kind: share, above: 0.1, min_requests: .inf}", "when.min_requests", "finite"),
        (
            "when: {kind: share, above: 0.1, sli: {kind: latency, threshold_seconds: .inf}}",
            "when.sli.threshold_seconds",
            "finite",
        ),
        ("when: {kind: share, above: 0.1, sli: {kind: availability, bad: []}}", "when.sli.bad", "nothing is ever bad"),
        ("when: {kind: share, above: 0.1, sli: {kind: availability, bad: [timeout, ok]}}", "when.sli.bad", "always"),
        ("when: {kind: share, above: 0.1, min_requests: 3e8}", "when.min_requests", "no window of 30 s holds 3e+08"),
        (
            "when: {kind: share, above: 0.1, sli: {kind: latency, threshold_seconds: 2.7e6}}",
            "when.sli.threshold_seconds",
            "longer than the 30 d",
        ),
        # spans
        ("when: {kind: silent, after: 2h, remember: 1h}", "when.after", "forgotten after 1 h"),
        ("for: 59m 30s, when: {kind: silent, after: 30s, remember: 1h}", "when.after", "lower after or for"),
        ("for: 40d, when: {kind: signal, signal: waiting, above: 2}", "for", "longer than the 30 d"),
        ("when: {kind: signal, signal: waiting, above: 2, over: 31d}", "when.over", "longer than the 30 d"),
        ("when: {kind: wedged, after: 31d}", "when.after", "longer than the 30 d"),
        ("when: {kind: silent, after: 31d, remember: 60d}", "when.after", "longer than the 30 d"),
        ("when: {kind: silent, after: 900ms}", "when.after", "shorter than 1 s"),
        ("keep_firing_for: 31d, when: {kind: wedged}", "keep_firing_for", "longer than the 30 d"),
        ("when: {kind: share, above: 0.1, window: 200ms}", "when.window", "shorter than 1 s"),
        ("when: {kind: share, above: 0.1, window: 31d}", "when.window", "longer than the 30 d"),
    ],
)
def test_a_rule_that_sees_nothing_is_refused(text: str, field: str, said: str):
    (fault,) = faults(rule(text))
    assert fault.startswith(f"rules.yaml:2: rules[0].{field}: "), fault
    assert said in fault


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("sli: availability, target: 0.9, period: 10m", "period", "give windows"),
        ("sli: availability, target: 99.9", "target", "write 0.999 for 99.9 %"),
        ("sli: availability, target: 100", "target", "below 1"),
        ("sli: availability, target: 0", "target", "above 0"),
        ("sli: availability, target: .nan", "target", "must be a share"),
        ("sli: {kind: availability, bad: []}, target: 0.9", "sli.bad", "nothing is ever bad"),
        ("sli: {kind: availability, source: metrics, bad: [timeout]}, target: 0.9", "sli.bad", "tell no outcomes"),
        ("sli: {kind: availability, source: metrics}, target: 0.9, filter: {tenant: a}", "filter.tenant", "no tenant"),
        ("sli: {kind: availability, source: metrics}, target: 0.9, by: [tenant]", "by", "no tenant"),
        (
            "sli: {kind: latency, source: metrics, threshold_seconds: 1}, target: 0.9, filter: {engine: llamacpp}",
            "filter.engine",
            "llamacpp shows no ttft_seconds: use ",
        ),
        (
            "sli: {kind: availability, source: metrics}, target: 0.9, filter: {engine: llamacpp}",
            "filter.engine",
            "shows no failed requests",
        ),
        ("sli: {kind: latency, threshold_seconds: .inf}, target: 0.9", "sli.threshold_seconds", "finite"),
        ("sli: {kind: goodput, limits: {ttft_seconds: .inf}}, target: 0.9", "sli.limits.ttft_seconds", "finite"),
        ("sli: availability, target: 0.9, min_requests: .inf", "min_requests", "finite"),
        (
            "sli: availability, target: 0.9, windows: [{long: 1h, short: 5m, factor: .inf}]",
            "windows[0].factor",
            "finite",
        ),
        (
            "sli: availability, target: 0.9, windows: [{long: 1h, short: 5m, factor: 10}]",
            "windows[0].factor",
            "can never be exceeded",
        ),
        (
            "sli: availability, target: 0.9, windows: [{long: 1h, short: 500ms, factor: 2}]",
            "windows[0].short",
            "shorter than 1 s",
        ),
        (
            "sli: availability, target: 0.9, windows: [{long: 40d, short: 5m, factor: 2}]",
            "windows[0].long",
            "longer than the 30 d",
        ),
        ("sli: availability, target: 0.01, period: 90d", "target", "below every factor"),
        ("sli: availability, target: 0.999, min_requests: 1e12", "min_requests", "no window of 3 d holds 1e+12"),
        ("sli: availability, target: 0.999, keep_firing_for: 40d", "keep_firing_for", "longer than the 30 d"),
        ("sli: {kind: goodput, limits: {e2e_seconds: 3e6}}, target: 0.99", "sli.limits.e2e_seconds", "the 30 d"),
        (
            "sli: {kind: availability, source: metrics}, target: 0.99, filter: {engine: vlm}",
            "filter.engine",
            "no engine is called vlm",
        ),
    ],
)
def test_an_objective_that_pages_nobody_is_refused(text: str, field: str, said: str):
    (fault,) = faults(slo(text))
    assert fault.startswith(f"rules.yaml:2: slos[0].{field}: "), fault
    assert said in fault


def test_all_that_see_nothing_are_told_at_once():
    text = """
rules:
  - {name: a, when: {kind: signal, signal: up, above: 1}}
  - {name: b, filter: {model: m}, when: {kind: silent}}
  - {name: c, when: {kind: signal, signal: waiting, above: .nan}}
slos:
  - {name: d, sli: availability, target: 0.9, period: 5m}
"""
    assert [fault.split(": ")[0] for fault in faults(text)] == [f"rules.yaml:{line}" for line in (7, 3, 4, 5)]


@pytest.mark.parametrize("period", ["1h", "12h", "1d", "7d", "28d", "29d", "30d", "90d"])
def test_every_objective_that_is_taken_has_rules_with_windows(period: str, tmp_path: Path):
    text = slo(f"sli: availability, target: 0.999, period: {period}")
    made = all_rules(parse(text))
    assert [each.severity for each in made] == ["critical", "warning"]
    assert all(len(each.when.windows) == 2 for each in made)
    path = tmp_path / "slos.yaml"
    path.write_text(text)
    assert "1 SLOs, 2 rules" in check(path)


def test_rows_of_an_engine_that_is_none_may_come_from_anybody_and_are_warned_of():
    text = slo("sli: availability, target: 0.999, filter: {engine: vlm}")
    (warning,) = parse(text).warnings()
    assert warning.startswith("a: filter.engine: no engine is called vlm")
    assert not parse(text.replace("vlm", "vllm")).warnings()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "triton", "llamacpp", "v*", "'*'", "[tgi, vllm]", "''"])
def test_engines_that_show_progress_are_taken(engine: str):
    parse(rule(f"filter: {{engine: {engine}}}, when: {{kind: wedged}}"))


@pytest.mark.parametrize("signal", SAMPLE_SIGNALS)
def test_each_signal_has_a_range_and_an_engine_that_shows_it(signal: str):
    sight = sight_of(signal)
    assert sight.low == 0
    assert (sight.high == 1) == (signal == "up" or signal.endswith("_ratio"))
    assert (sight.unit == "ratio") == signal.endswith("_ratio")
    assert any({one.signal for one in table.rules} >= set(sight.needs) for table in tables().values())


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(SAMPLE_SIGNALS), st.sampled_from(["above", "below"]), st.floats(allow_nan=False), st.floats(0, 1)
)
def test_what_is_taken_holds_for_some_value_in_range_and_not_for_all(signal: str, word: str, bound: float, at: float):
    sight = sight_of(signal)
    high = sight.high if math.isfinite(sight.high) else 1e300
    values = [sight.low, sight.low + at * (high - sight.low), high]
    try:
        parse(yaml.safe_dump({"rules": [{"name": "a", "when": {"kind": "signal", "signal": signal, word: bound}}]}))
    except RulesError:
        holds = [value > bound if word == "above" else value < bound for value in values]
        assert len(set(holds)) == 1
    else:
        ends = {sight.low > bound, high > bound} if word == "above" else {sight.low < bound, high < bound}
        assert True in ends or not math.isfinite(sight.high)
