"""Links lead somewhere, commands in examples exist, and nothing tells of the machine it was written on."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import click
import pytest

from alerts.rules import file as rules_file
from servescope.cli import main
from tests.docs.test_docs_reference import commands, long_options
from tests.kits.docs import ROOT, anchors, blocks, documents, prose, tracked

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_TOLD = re.compile(
    r"(?<![\w.])/(?:work|farm|root|home/\w+)/\w|\bsession numbers?\b|\bhelpers?\b(?! function)", re.IGNORECASE
)
_TEXT = {".md", ".py", ".sql", ".yaml", ".toml", ".svg", ".css", ".js", ".txt", ".pbtxt", ".json", ""}
_BIG = 2_000_000


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", documents(), ids=relative)
def test_links_and_images_lead_somewhere(document: Path):
    for target in _LINK.findall(prose(document.read_text())):
        parts = urlsplit(target)
        if parts.scheme or target.startswith("<"):
            continue
        place = (document.parent / unquote(parts.path)).resolve() if parts.path else document
        assert place.exists(), f"{target} of {relative(document)}"
        assert place.is_relative_to(ROOT), target
        if parts.fragment and place.suffix == ".md":
            assert parts.fragment in anchors(place), f"{target} of {relative(document)}"


def invocations(text: str) -> list[list[str]]:
    """Arguments after ``servescope`` of each command in shell blocks; quoted text may span lines."""
    found: list[list[str]] = []
    for block in blocks(text, "sh"):
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            pending += f"{line}\n"
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # an open quote
                continue
            pending = ""
            if words and Path(words[0]).name == "servescope":
                found.append(words[1:])
        assert not pending, f"open quote: {pending}"
    return found


def test_invocations_are_found():
    text = '```sh\n.venv/bin/servescope sql "SELECT 1,\n 2"  # why\nservescope up \\\n  --target x\nmake demo\n```\n'
    assert invocations(text) == [["sql", "SELECT 1,\n 2"], ["up", "--target", "x"]]


@pytest.mark.parametrize("document", documents(), ids=relative)
def test_commands_in_examples_exist(document: Path):
    known = commands()
    for words in invocations(document.read_text()):
        if words[:1] == ["--version"]:
            continue
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
        assert name is not None, f"servescope {' '.join(words)}"
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= long_options(known[name]), f"servescope {' '.join(words)}"


def test_targets_of_make_in_examples_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in documents():
        named = re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(), re.MULTILINE)
        assert set(named) <= targets, relative(document)


def test_slo_files_in_examples_are_right():
    checked = 0
    for document in documents():
        for block in blocks(document.read_text(), "yaml"):
            if block.startswith("version:"):
                assert rules_file.parse(block, relative(document)).slos
                checked += 1
    assert checked


def test_pictures_are_well_formed():
    for path in tracked():
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")


def test_help_of_every_command_says_something():
    def walk(command: click.Command) -> None:
        assert command.help, command.name
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                walk(inner)

    walk(main)


def test_no_file_tells_of_the_machine_it_was_written_on():
    told = []
    for path in tracked():
        if path == Path(__file__).resolve() or path.suffix not in _TEXT or path.stat().st_size > _BIG:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        told += [f"{relative(path)}: {match[0]!r}" for match in _TOLD.finditer(text)]
    assert told == []


@pytest.mark.parametrize("marker", ["triton", "browser"])
def test_marked_tests_lie_where_make_test_looks_for_them(marker: str):
    (line,) = re.findall(rf'-m "{marker} and not heavy[^"]*" (.+)', (ROOT / "Makefile").read_text())
    marked = {path for path in (ROOT / "tests").rglob("*.py") if re.search(rf"mark\.{marker}\b", path.read_text())}
    assert marked
    assert not {path for path in marked if not any(path.is_relative_to(ROOT / folder) for folder in line.split())}
