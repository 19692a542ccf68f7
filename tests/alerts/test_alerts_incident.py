from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.incidents.incident import (
    GROUP_SECONDS,
    MEMBERS_LIMIT,
    Alert,
    Incident,
    IncidentState,
    acknowledge,
    clear,
    fire,
    related,
)


def alert(rule: str = "r", severity: str = "critical", **labels: str) -> Alert:
    return Alert(rule, labels, {}, severity, f"{rule} is too high", 57.0, 20.0, 0.0, "", 100.0)


def ids():
    numbers = itertools.count(1)
    return lambda: f"i{next(numbers):04}"


def test_alerts_of_one_deployment_are_one_incident_and_one_page():
    new_id = ids()
    first = fire([], alert("waiting", instance="a", deployment="d"), 1.0, new_id)
    second = fire([first.incident], alert("ttft", deployment="d"), 2.0, new_id)
    third = fire([second.incident], alert("other", deployment="e"), 3.0, new_id)
    assert (first.action, second.action, third.action) == ("trigger", None, "trigger")
    assert first.incident.id == second.incident.id != third.incident.id
    assert second.incident.title == "waiting is too high"
    assert "ttft is too high" in second.incident.summary
    assert second.incident.labels == {"deployment": "d"}
    assert [m.kind for m in first.moments] == ["opened", "alert_firing"]


def test_an_incident_ends_with_its_last_alert():
    new_id = ids()
    a, b = alert("x", instance="a"), alert("y", instance="a")
    incident = fire([fire([], a, 1.0, new_id).incident], b, 2.0, new_id).incident
    half = clear(incident, a.key, 3.0, "the condition no longer holds")
    assert half.action is None
    assert half.incident.state is IncidentState.OPEN
    over = clear(half.incident, b.key, 4.0, "the condition no longer holds")
    assert over.action == "resolve"
    assert over.incident.state is IncidentState.RESOLVED
    assert over.incident.resolved_at == 4.0


def test_a_worse_alert_raises_the_severity_and_tells():
    new_id = ids()
    first = fire([], alert("x", "warning", instance="a"), 1.0, new_id)
    worse = fire([first.incident], alert("y", "critical", instance="a"), 2.0, new_id)
    assert worse.action == "trigger"
    assert worse.incident.severity == "critical"
    assert worse.moments[-1].kind == "severity_raised"


def test_acknowledging_twice_pages_once_and_keeps_the_last_owner():
    first = fire([], alert(instance="a"), 1.0, ids()).incident
    once = acknowledge(first, "ada\u202e", "looking", 2.0)
    twice = acknowledge(once.incident, "bob", "", 3.0)
    assert (once.action, twice.action) == ("acknowledge", None)
    assert once.incident.owner == "ada"
    assert twice.incident.owner == "bob"
    assert twice.incident.state is IncidentState.ACKNOWLEDGED


def test_places_that_contradict_stay_apart():
    incident = fire([], alert("x", deployment="d", model="m", region="eu"), 1.0, ids()).incident
    assert related(incident, alert("y", model="m"))
    assert not related(incident, alert("y", model="m", region="us"))
    assert not related(incident, alert("y", model="other"))
    assert not related(incident, alert("y", component="store"))


def test_an_alert_without_labels_keeps_to_its_like():
    everywhere = fire([], alert("burn"), 1.0, ids()).incident
    for place in ({"instance": "a"}, {"model": "m"}, {"deployment": "d"}, {"region": "eu"}, {"tenant": "t"}):
        assert not related(everywhere, alert("y", **place))
        assert not related(fire([], alert("y", **place), 1.0, ids()).incident, alert("burn"))
        assert related(fire([], alert("y", **place), 1.0, ids()).incident, alert("z", **place))
    assert related(everywhere, alert("other-burn"))


def test_no_chain_of_alerts_joins_two_places():
    new_id = ids()
    first = fire([], alert("x", deployment="d", model="m"), 1.0, new_id).incident
    between = fire([first], alert("y", model="m"), 2.0, new_id).incident
    assert between.id == first.id
    assert not related(between, alert("z", deployment="e", model="m"))


@pytest.mark.parametrize(
    "place",
    [{"instance": "b"}, {"deployment": "d", "instance": "b"}, {"model": "n", "instance": "a"}, {"deployment": "d2"}],
)
@pytest.mark.parametrize("taken", [False, True])
def test_a_new_place_pages_again_under_a_key_of_its_own(place: dict[str, str], taken: bool):
    new_id = ids()
    incident = fire([], alert("x", instance="a", deployment="d", model="m"), 1.0, new_id).incident
    if taken:
        incident = acknowledge(incident, "ada", "", 2.0).incident
    change = fire([incident], alert("x2", **place), 3.0, new_id)
    assert change.action == "trigger"
    assert change.incident.keys[-1] not in incident.keys
    assert change.opened == (
        taken or ("deployment" in place and place["deployment"] != "d") or place == {"instance": "b"}
    )
    again = fire([incident, change.incident], alert("x3", **place), 4.0, new_id)
    assert (again.action, again.incident.id) == (None, change.incident.id)


@pytest.mark.parametrize("taken", [False, True])
def test_a_graver_alert_pages_again_under_a_key_of_its_own(taken: bool):
    new_id = ids()
    incident = fire([], alert("x", "warning", instance="a"), 1.0, new_id).incident
    if taken:
        incident = acknowledge(incident, "ada", "", 2.0).incident
    worse = fire([incident], alert("y", "critical", instance="a"), 3.0, new_id)
    assert (worse.action, worse.opened, worse.incident.severity) == ("trigger", taken, "critical")
    assert worse.incident.keys[-1] not in incident.keys
    assert fire([worse.incident], alert("z", "error", instance="a"), 4.0, new_id).action is None


def test_an_incident_that_has_not_changed_for_long_takes_nothing_new():
    new_id = ids()
    incident = fire([], alert("x", instance="a"), 0.0, new_id).incident
    assert fire([incident], alert("y", instance="a"), GROUP_SECONDS, new_id).incident.id == incident.id
    late = fire([incident], alert("y", instance="a"), GROUP_SECONDS + 1, new_id)
    assert (late.action, late.opened) == ("trigger", True)
    half = clear(fire([incident], alert("y", instance="a"), 1.0, new_id).incident, "y\x1finstance=a", 2.0, "over")
    again = fire([half.incident], alert("y", instance="a"), 3 + GROUP_SECONDS, new_id)
    assert again.opened


def test_new_places_of_one_round_are_one_page():
    new_id = ids()
    incident = fire([], alert("x", instance="a", deployment="d"), 1.0, new_id).incident
    for name in "bcd":
        incident = fire([incident], alert("x", instance=name, deployment="d"), 2.0, new_id).incident
    assert incident.keys == ["servescope-i0001", "servescope-i0001-2"]


def test_hostile_names_are_cleaned_and_cut():
    nasty = Alert("r", {"tenant": "x\n\u202e" + "y" * 500}, {}, "critical", "bad\r\n" + "z" * 5000, 1, 1, 0, "", 1.0)
    incident = fire([], nasty, 1.0, ids()).incident
    assert len(incident.title) <= 300
    assert "\n" not in incident.title
    assert all(len(value) <= 80 and "\u202e" not in value for value in incident.labels.values())


labels = st.fixed_dictionaries(
    {}, optional={n: st.sampled_from(["", "a", "b"]) for n in ("deployment", "instance", "model", "region")}
)
alerts = st.builds(
    lambda rule, place, severity: alert(rule, severity, **place),
    st.sampled_from(["r1", "r2", "r3"]),
    labels,
    st.sampled_from(["warning", "critical"]),
)


@given(st.lists(st.tuples(alerts, st.booleans()), max_size=60))
def test_every_course_opens_and_ends_incidents_that_agree_with_their_alerts(course: list[tuple[float, bool | None]]):
    new_id, known, firing = ids(), {}, set()
    triggers, resolves = [], []
    for number, (one, on) in enumerate(course):
        now = float(number)
        holders = [i for i in known.values() if one.key in i.alerts and i.alerts[one.key].resolved_at is None]
        assert len(holders) == (one.key in firing)
        if on and one.key not in firing:
            change = fire(known.values(), one, now, new_id)
            firing.add(one.key)
        elif not on and one.key in firing:
            change = clear(holders[0], one.key, now, "over")
            firing.discard(one.key)
        else:
            continue
        known[change.incident.id] = change.incident
        assert Incident.from_dict(json.loads(json.dumps(change.incident.as_dict()))) == change.incident
        if change.opened:
            triggers.append(change.incident.id)
        if change.action == "resolve":
            resolves.append(change.incident.id)
    still = [i.id for i in known.values() if i.state is not IncidentState.RESOLVED]
    assert len(set(triggers)) == len(triggers)
    assert sorted(resolves + still) == sorted(triggers)
    assert bool(still) == bool(firing)


def test_ten_thousand_alerts_make_incidents_of_bounded_size():
    new_id, known = ids(), {}
    for number in range(1000):
        change = fire(known.values(), alert(f"r{number}", deployment="d"), 1.0, new_id)
        known[change.incident.id] = change.incident
    assert len(known) == 1000 // MEMBERS_LIMIT
    assert all(len(i.alerts) <= MEMBERS_LIMIT and len(i.summary) <= 2000 for i in known.values())
