"""How answers look on a terminal, and in a pipe."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from analytics.ask import sentence_of
from servescope import printing
from servescope.commands.sql import _shown
from servescope.printing import print_answer

ADVICE = "Limit the tenant's concurrency or max-num-seqs; give the cache more memory (gpu-memory-utilization)."
CAUSE = {
    "cause": "kv_cache_full", "who": {"tenant": "a7", "instance": "vllm-0"}, "seconds": 30.25, "requests": 1_200,
    "evidence": ["1200 requests lost 30.2 s.", "vllm-0: KV cache up to 100%."], "advice": ADVICE,
}  # fmt: skip


def envelope(causes: list[dict[str, Any]], excess: float = 40.0) -> dict[str, Any]:
    result = {"requests": 3_200, "excess_seconds": excess, "causes": causes}
    return {"window": {"start": "2026-05-04T10:00", "end": "2026-05-04T10:10"}, "rows": 3_200, "level": "rows",
            "result": result}  # fmt: skip


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_answer(envelope([CAUSE]), sentence_of("causes", envelope([CAUSE])))
    return capsys.readouterr().out.splitlines()


def test_a_terminals_lines_are_no_longer_than_it_is_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    whole = told(capsys)
    assert max(map(len, whole)) > 150
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(printing.shutil, "get_terminal_size", lambda: os.terminal_size((60, 20)))
    wrapped = told(capsys)
    assert max(map(len, wrapped)) <= 60
    assert " ".join(" ".join(wrapped).split()) == " ".join(" ".join(whole).split())  # nothing is lost


def test_how_much_to_what_whose_and_what_next_stands_first(capsys: pytest.CaptureFixture[str]):
    assert told(capsys)[1] == (
        "3,200 requests took 40 s more than usual. First: KV cache full, tenant a7, instance vllm-0, "
        f"30.2 s of 1,200. {ADVICE}"
    )


def test_what_shows_a_cause_stands_beneath_it(capsys: pytest.CaptureFixture[str]):
    said = told(capsys)
    at = next(place for place, line in enumerate(said) if "cause=kv_cache_full" in line)
    assert said[at + 1 :] == ["    evidence: 1200 requests lost 30.2 s.", "    evidence: vllm-0: KV cache up to 100%."]


@pytest.mark.parametrize(
    ("excess", "said_of_it"), [(40.0, "40 s more"), (-2.0, "2 s less"), (12345.6, "3 h 26 min more")]
)
def test_a_quiet_window_says_so(excess: float, said_of_it: str):
    said = sentence_of("causes", envelope([], excess))
    assert said == f"3,200 requests took {said_of_it} than usual, and no cause stands out."


def test_other_questions_say_no_sentence():
    assert not sentence_of("tenants", {"result": {}})


@pytest.mark.parametrize("terminal", [True, False])
def test_a_name_steers_no_terminal_and_begins_no_line(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    name = "a\x1b]52;c;aGk=\x07\x1b[31m\n  tenant=forged\r\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}\x9b1mz"
    result = {"tenants": [{"tenant": name}], name: {name: name}, "names": [name]}
    print_answer({"window": {"start": "a", "end": "b"}, "rows": 1, "level": "rows", "result": result}, name)
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{LINE SEPARATOR}"} & set(out)
    assert "tenant=a" in out
    assert "forged" in out
    assert "\n  tenant=forged" not in out
    assert terminal or len(out.splitlines()) == 7


def test_characters_in_two_pieces_are_shown_whole():
    assert b"".join(_shown([b"\xc3", b"\xa9\xc2", b"\x9b\n", b"\xe2\x82"])).decode() == "é\ufffd\n\ufffd"
