"""No thread of a test outlives it: a test that fails while one writes on would keep pytest from ever ending."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _waited_for(text: str) -> list[int]:
    """Lines that make a thread for which the interpreter waits at its end."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if (call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) == "Thread"
        and not any(one.arg == "daemon" and ast.unparse(one.value) == "True" for one in call.keywords)
    ]


def test_threads_of_tests_end_with_the_process() -> None:
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("demo/**/*.py")]
    assert {str(file.relative_to(ROOT)): found for file in files if (found := _waited_for(file.read_text()))} == {}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Thread(target=f)", [1]),
        ("x = 1\nthreading.Thread(target=f, daemon=False)", [2]),
        ("threading.Thread(target=f, daemon=True)", []),
    ],
)
def test_a_thread_that_is_waited_for_is_found(text: str, lines: list[int]) -> None:
    assert _waited_for(text) == lines
