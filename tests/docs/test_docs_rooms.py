"""The picture of the rooms has the arrows that the code has."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGES = ("base", "agent", "collector", "analytics", "alerts", "dashboard", "servescope", "demo", "benchmarks")


def test_the_picture_of_the_rooms_shows_every_import_between_packages():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
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
