from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alerts.measure.measured import Counted
from alerts.rules.burn import judge
from alerts.rules.file import RulesError, check, load, parse, summary
from alerts.rules.model import RulesFile, all_rules
from alerts.rules.scope import Scope
from alerts.rules.slo import Burn
from base.durations import parse_duration
from base.formats import spell

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (ROOT / "alerts" / "slos.example.yaml", ROOT / "demo" / "slos.yaml")

GOOD = """\
slos:
  - name: a
    sli: availability
    target: 0.999
rules:
  - name: w
    when: {kind: signal, signal: waiting, above: 20}
    for: 3s
"""


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(RulesError) as caught:
        parse(text, "rules.yaml")
    return caught.value.faults


@pytest.mark.parametrize("rule", ["*x11", "[{name: a, when: {kind: *x11}}]", "[{name: a, for: *x11}]"])
def test_aliases_that_stand_for_more_than_memory_holds_are_told_at_once(rule: str):
    levels = [f"  - &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]" for level in range(1, 12)]
    text = "\n".join(["more:", "  - &x0 [a]", *levels, f"rules: {rule}"])
    assert faults(text) == ("rules.yaml:9: stands for more than 4194304 values with its aliases",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("above: 20", "abve: 20"), "rules.yaml:7: rules[0].when.abve: no such field"),
        (("above: 20", "above: many"), "rules.yaml:7: rules[0].when.above: "),
        (("waiting", "wating"), "rules.yaml:7: rules[0].when.signal: "),
        (("kind: signal", "kind: magic"), "rules.yaml:7: rules[0].when: kind 'magic' is none of "),
        (("kind: signal, ", ""), "rules.yaml:7: rules[0].when: needs a kind"),
        (("for: 3s", "for: 3x"), "rules.yaml:8: rules[0].for: '3x' is not a duration"),
        (("target: 0.999", "target: 99.9"), "rules.yaml:4: slos[0].target: "),
        (("    target: 0.999\n", ""), "rules.yaml:2: slos[0].target: is missing"),
        (("sli: availability", "sli: {kind: latency}"), "rules.yaml:3: slos[0].sli.threshold_seconds: is missing"),
        (("name: w", "name: a"), "rules.yaml:6: rules[0].name: a is the name of slos[0].name too"),
        (("name: w", "name: Wait!"), "rules.yaml:6: rules[0].name: use lower-case letters"),
        (("name: w", "name: a-burn"), "rules.yaml:2: slos[0].name: it generates a-burn, the name of rules[0].name too"),
        (("name: w", "name: store_unreachable"), "rules.yaml:6: rules[0].name: store_unreachable is the name of "),
        (("    for: 3s\n", "    for: 3s\n    for: 4s\n"), "rules.yaml:9: rules[0].for: given twice"),
        (("rules:", "rulez:"), "rules.yaml:5: rulez: no such field"),
        (("above: 20}", "above: 20"), "rules.yaml:"),
    ],
)
def test_a_fault_names_file_line_and_field(change: tuple[str, str], expected: str):
    text = GOOD.replace(*change)
    assert text != GOOD
    assert any(fault.startswith(expected) for fault in faults(text)), faults(text)


def test_all_faults_are_told_at_once():
    text = GOOD.replace("0.999", "2").replace("3s", "x").replace("waiting", "wating")
    assert len(faults(text)) == 3


def test_what_is_no_mapping_or_no_text_is_said_plainly(tmp_path: Path):
    assert faults("- a\n- b\n") == ("rules.yaml:1: the file must be a mapping with slos: and rules:",)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("none.yaml", "binary.yaml"):
        with pytest.raises(RulesError, match="can't be read"):
            load(tmp_path / name)
    assert parse("") == RulesFile()


@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_rules_or_a_named_fault(text: str):
    try:
        parse(text)
    except RulesError as error:
        assert all(fault.startswith("rules:") for fault in error.faults)  # noqa: PT017 hypothesis wants both ways


def test_windows_can_be_shortened_and_keep_their_order():
    rule = all_rules(parse(GOOD.replace("0.999", "0.9\n    windows: [{long: 20s, short: 5s, factor: 2}]")))[1]
    assert isinstance(rule.when, Burn)
    assert (rule.name, rule.severity) == ("a-burn", "critical")
    assert [(w.long_seconds, w.short_seconds, w.factor) for w in rule.when.windows] == [(20, 5, 2)]
    assert (
        "longer than the long one"
        in faults(GOOD.replace("0.999", "0.9\n    windows: [{long: 5s, short: 20s, factor: 2}]"))[0]
    )


def test_default_windows_that_a_target_keeps_from_firing_are_left_out_and_told(tmp_path: Path):
    path = tmp_path / "slos.yaml"

    def checked(target: str) -> tuple[list[tuple[str, list[float]]], str]:
        path.write_text(GOOD.replace("0.999", target))
        burning = [rule for rule in all_rules(load(path)) if isinstance(rule.when, Burn)]
        return [(rule.name, [window.factor for window in rule.when.windows]) for rule in burning], check(path)

    assert parse(GOOD).warnings() == ()
    rules, told = checked("0.9")
    assert rules == [("a-burn", [6]), ("a-burn-warning", [3, 1])]
    assert told.count("14.4x") == 1
    assert "warning: SLO a: left out 1 h/5 min above 14.4x, for with a target of 0.9 the highest burn rate" in told
    assert "pages as" not in told
    rules, told = checked("0.8")
    assert rules == [("a-burn-warning", [3, 1])]
    assert "left out 1 h/5 min above 14.4x, 6 h/30 min above 6x" in told
    assert told.endswith("highest burn rate is 5; nothing of it pages as critical: give windows with lower factors")


@given(st.floats(0.01, 0.9999), st.sampled_from(["1h", "1d", "28d", "30d", "90d"]))
def test_every_window_that_is_left_can_fire(target: float, period: str):
    try:
        file = parse(GOOD.replace("0.999", f"{target:.6f}\n    period: {period}"))
    except RulesError as error:
        assert "below every factor" in str(error.faults)  # noqa: PT017 hypothesis wants both ways
        return
    for window in file.slos[0].burn_windows():
        all_bad = judge(window, Counted(1000, 1000), Counted(1000, 1000), file.slos[0].target, 10)
        assert all_bad.breached


@given(st.dictionaries(st.sampled_from(["model", "tenant", "instance"]), st.text(max_size=5), max_size=3))
def test_an_empty_scope_holds_everything(labels: dict[str, str]):
    assert Scope().matches(labels)


def test_scopes_take_wildcards_lists_and_exact_names():
    scope = Scope.model_validate({"model": ["llama-*", "q?"], "deployment": "chat"})
    assert scope.matches({"model": "llama-3", "deployment": "chat"})
    assert scope.matches({"model": "q1", "deployment": "chat"})
    assert not scope.matches({"model": "Llama-3", "deployment": "chat"})
    assert not scope.matches({"model": "llama-3"})
    assert scope.fixed() == {"deployment": "chat"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_shipped_rules_are_right_and_each_has_a_runbook_that_says_what_to_do(path: Path):
    file = load(path)
    assert file.warnings() == ()
    for entry in (*file.slos, *file.rules):
        assert entry.description, entry.name
        text = (ROOT / entry.runbook).read_text()
        assert entry.runbook.startswith("docs/runbooks/")
        for heading in ("## What it means", "## What to look at", "## What to do"):
            assert heading in text, (entry.runbook, heading)
    assert f"{path}: {len(file.slos)} SLOs" in check(path)
    assert {rule["name"] for rule in summary(file)["rules"]} == {rule.name for rule in all_rules(file)}


@pytest.mark.parametrize(
    ("text", "seconds"), [("3s", 3), ("500ms", 0.5), ("1h30m", 5400), ("30d", 2592000), (7, 7), ("2 w", 1209600)]
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "3", "3 parsecs", None, True, "-3s", [3]])
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(1, 10**7))
def test_a_spelt_duration_says_the_same(seconds: float):
    assert parse_duration(spell(seconds)) == seconds


def test_yaml_anchors_work():
    text = yaml.safe_dump({"slos": []})
    assert parse(text) == RulesFile()
