"""The picture of the rooms has the arrows that the code has, and no module needs one that needs it."""

from __future__ import annotations

import re
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


def rooms_of(package: str) -> set[str]:
    """Folders of a package that hold modules, and those right in it that hold statements."""
    here = ROOT / package
    return {made.parent.name for made in [*here.rglob("__init__.py"), *here.glob("*/*.sql")]} - {package}


def test_the_table_of_the_rooms_names_the_folders_that_are_there():
    text = (
        (ROOT / "docs" / "architecture.md")
        .read_text(encoding="utf-8")
        .partition("\n## Rooms\n")[2]
        .partition("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", text, re.MULTILINE))
    told = {package: set(re.findall(r"`(\w+)/`", row)) for package, row in rows.items()}
    assert told == {package: rooms_of(package) for package in PACKAGES if package in told}
    assert set(PACKAGES) - set(told) == {"demo", "benchmarks"}


def test_the_picture_names_no_room_that_is_gone():
    boxes, package = dict[str, str](), ""
    for text in ET.parse(ROOT / "docs" / "rooms.svg").iter("{http://www.w3.org/2000/svg}text"):
        said = "".join(text.itertext())
        if said in PACKAGES:
            package = said
        else:
            boxes[package] = said
    assert set(boxes) == set(PACKAGES)
    for package, said in boxes.items():
        assert set(re.findall(r"(\w+)/", said)) <= rooms_of(package), package
