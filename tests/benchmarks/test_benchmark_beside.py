from __future__ import annotations

from benchmarks.beside import RATIO_GOAL, SCANS, figures
from benchmarks.line import KEYS
from collector.embedded.limits import Limits


def test_figures_are_judged_against_the_same_question_alone():
    made = {figure["name"]: figure for figure in figures([1.0, 1.2, 2.0], [1.1, 1.5, 9.0], 0)}
    assert all(tuple(figure) == KEYS for figure in made.values())
    middle, longest = made["tenants_beside_guests_p50"], made["tenants_beside_guests_max"]
    assert (middle["value"], middle["ratio"], middle["met"]) == (1.5, 1.25, True)
    assert (longest["goal"], longest["met"]) == (2.0 * RATIO_GOAL, False)
    assert made["store_recycled_by_ordinary_scans"]["met"]
    assert not figures([1.0], [1.0], 1)[-1]["met"]


def test_the_guests_take_all_places_that_guests_are_sure_to_have():
    assert len(SCANS) == 3 <= Limits().readers
