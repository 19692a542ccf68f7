"""Each page, panel and command that the list of questions names is there, and every row says where or why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dashboard
from base import found
from dashboard import views
from tests.docs.test_docs_reference import commands
from tests.kits.docs import ROOT, sections

LIST = ROOT / "docs" / "questions.md"
DASHBOARD = Path(dashboard.__path__[0])
FIELD = 30
"""Questions that dashboards of the field answer."""


def rows() -> list[list[str]]:
    lines = [line for line in LIST.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[1:]]


def said(page: Path) -> set[str]:
    """Texts in the code of a page and in that of what it draws with."""
    waiting, seen, texts = [page], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value.removeprefix("## "))
            elif isinstance(node, ast.ImportFrom) and node.module == "dashboard":
                waiting += [DASHBOARD / f"{each.name}.py" for each in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dashboard."):
                waiting.append(DASHBOARD / f"{(node.module or '').removeprefix('dashboard.')}.py")
    return texts


def test_every_question_of_the_field_is_in_the_list_once():
    numbers = [int(match[1]) for row in rows() if (match := re.match(r"(\d+)\. ", row[0]))]
    assert numbers == list(range(1, FIELD + 1))


def test_pages_and_panels_that_the_list_names_are_in_the_code():
    pages = {title: said(DASHBOARD / "views" / f"{name}.py") for name, title in found.members(views, "TITLE").items()}
    assert "What binds each engine" not in pages["Queue"], "a panel is looked for on its own page"
    for question, page, panel, *_ in rows():
        assert bool(page) == bool(panel), question
        if page:
            assert panel.removeprefix("…") in pages[page], question


def test_commands_that_the_list_names_exist_and_ask():
    known = commands()
    for question, _, _, command, _ in rows():
        for words in re.findall(r"`servescope ([^`]+)`", command):
            assert words in known, question
            assert "--json" in {name for option in known[words].params for name in option.opts}, question


def test_what_has_no_answer_says_why():
    told = sections(LIST)["Not answered, and why"]
    for question, page, _, command, part in rows():
        if not page and not command:
            assert part == "see below"
        if part == "see below":
            assert f"**{question.split('.')[0]}, " in told, question
