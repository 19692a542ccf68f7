"""The picture of the rooms has the arrows that the code has, and no module needs one that needs it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("base", "agent", "collector", "analytics", "alerts", "dashboard", "servescope", "demo", "benchmarks")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_no_module_needs_one_that_needs_it(graph: grimp.ImportGraph):
    needs = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(needs).prepare()  # raises a CycleError that names the circle


def test_the_picture_of_the_rooms_shows_every_import_between_packages(graph: grimp.ImportGraph):
    found = {
        (module.split(".")[0], other.split(".")[0])
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    }
    drawn = [
        (arrow.get("data-from"), arrow.get("data-to"))
        for arrow in ET.parse(ROOT / "docs" / "rooms.svg").iter()
        if arrow.get("data-from")
    ]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(one, other) for one, other in found if one != other}
