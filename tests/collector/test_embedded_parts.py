"""The store's pieces without an engine: repair of logs, the tokenizer, the fence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.embedded import repair
from collector.embedded.statement import first_word, output_clause, split_insert, tokens
from tests.kits.needs import lack

ROOT = Path(__file__).resolve().parents[2]


def table(root: Path, parts: list[str], lines: list[str]) -> Path:
    folder = root / "store" / "abc" / "abc-uuid"
    logs = folder / "deduplication_logs"
    logs.mkdir(parents=True)
    for part in parts:
        (folder / part).mkdir()
    (logs / "deduplication_log_1.txt").write_text("".join(lines[:2]))
    (logs / "deduplication_log_2.txt").write_text("".join(lines[2:]))
    return folder


def kept(folder: Path) -> list[str]:
    return [
        line.split("\t")[1]
        for path in sorted((folder / "deduplication_logs").glob("*.txt"))
        for line in path.read_text().splitlines()
    ]


def test_only_lines_of_missing_parts_are_dropped(tmp_path: Path):
    names = ["20260101_1_1_0", "20260101_2_2_0", "20260101_3_3_0", "20260102_4_4_0", "all_5_5_0"]
    folder = table(
        tmp_path,
        ["20260101_1_2_1", "tmp_insert_20260101_3_3_0", "20260102_4_4_0_7", "detached"],
        [f"1\t{name}\tblock_{name}\n" for name in names],
    )
    assert repair.damaged(folder)
    assert repair.before_open(tmp_path) == 2
    assert kept(folder) == ["20260101_1_1_0", "20260101_2_2_0", "20260102_4_4_0"]
    assert not repair.damaged(folder)
    assert repair.before_open(tmp_path) == 0


def test_a_torn_last_line_and_removals(tmp_path: Path):
    folder = table(tmp_path, ["all_1_1_0"], ["1\tall_1_1_0\tx\n", "2\tall_9_9_0\ty\n", "1\tall_2"])
    assert repair.repair_folder(folder) == 1
    assert kept(folder) == ["all_1_1_0", "all_9_9_0"]


def test_lines_of_a_part_put_aside_are_dropped(tmp_path: Path):
    folder = table(tmp_path, ["all_3_3_0"], [f"1\tall_{n}_{n}_0\tx{n}\n" for n in (1, 2, 3)])
    broken = repair.Part.of("all_1_2_1")
    assert broken is not None
    assert repair.repair_folder(folder, [broken]) == 2
    assert kept(folder) == ["all_3_3_0"]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=6), st.sets(st.integers(1, 30), max_size=30))
def test_repair_keeps_exactly_what_is_covered(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]], noted: set[int]
):
    parts = sorted({f"p_{first}_{first + more}_1" for first, more in ranges})
    folder = table(tmp_path_factory.mktemp("repair"), parts, [f"1\tp_{n}_{n}_0\tb{n}\n" for n in sorted(noted)])
    repair.repair_folder(folder)
    covered = {n for first, more in ranges for n in range(first, first + more + 1)}
    assert kept(folder) == [f"p_{n}_{n}_0" for n in sorted(noted & covered)]


@pytest.mark.parametrize(
    ("sql", "form", "rest"),
    [
        ("SELECT 1", "", ""),
        ("SELECT 1;", "", ""),
        ("SELECT 1 FORMAT JSON", "JSON", "FORMAT JSON"),
        ("SELECT 1 format `JSON` ;", "JSON", "format `JSON` ;"),
        ("SELECT 1 FORMAT CSV SETTINGS a = 1", "CSV", "FORMAT CSV SETTINGS a = 1"),
        ("SELECT ' FORMAT JSON'", "", ""),
        ("SELECT 1 /* FORMAT JSON */ -- FORMAT CSV", "", ""),
        ("SELECT format FROM t", "", ""),
        ("SELECT (SELECT 1 FORMAT x)", "", ""),
        ("SELECT $$ FORMAT JSON$$", "", ""),
    ],
)
def test_output_clause_is_found(sql: str, form: str, rest: str):
    place, found = output_clause(sql)
    assert found == form
    if rest:
        assert sql[place:] == rest


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t WITH 1 AS x SELECT x",
        "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        "INSERT INTO t",
        "",
        "-- nothing",
    ],
)
def test_what_carries_no_data_is_not_split(sql: str):
    assert split_insert(sql) is None


def test_an_insert_is_split():
    text = "INSERT INTO format (a, b) SETTINGS s = 'FORMAT x ; VALUES' FORMAT CSV\n1,2\n"
    found = split_insert(text)
    assert found is not None
    assert (found.head, found.form, text[found.data_start :]) == ("INSERT INTO format (a, b) ", "CSV", "1,2\n")
    assert found.from_file("/x").split("\n") == [
        "INSERT INTO format (a, b) ",
        "FROM INFILE '/x' COMPRESSION 'none'",
        "SETTINGS s = 'FORMAT x ; VALUES' ",
        "FORMAT CSV",
    ]
    assert first_word("/* /* nested */ */ -- x\n (select 1)") == "SELECT"


@given(st.text(max_size=200))
def test_the_tokenizer_never_fails_and_loses_no_sign(text: str):
    end = 0
    for token in tokens(text):
        assert token.start >= end
        assert text[token.start : token.end] == token.text
        end = token.end
    split_insert(text)
    output_clause(text)


FENCED = """
import os, socket, sys
from pathlib import Path
from collector.embedded.sandbox import bound_memory, fence
data = Path(sys.argv[1])
port = int(sys.argv[2])
bound_memory(3 << 30)
print(fence(data, Path.cwd()))
(data / "mine").write_text("ok")
def refused(work):
    try:
        work()
    except PermissionError:
        return True
    return False
assert refused(lambda: Path("/etc/passwd").read_text())
assert refused(lambda: Path("/proc/self/environ").read_text())
assert refused(lambda: (data.parent / "secret").read_text())
assert refused(lambda: (data.parent / "new").write_text("x"))
assert refused(lambda: os.execv("/usr/bin/env", ["env"]))
assert refused(lambda: socket.create_connection(("127.0.0.1", port), 5))
assert (data / "mine").read_text() == "ok"
print("held")
"""


def test_the_fence_holds(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("secret")
    import socket  # noqa: PLC0415 - only this test opens one

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-c", FENCED, str(tmp_path / "data"), port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if "no Landlock" in done.stdout:
        lack(done.stdout)
    assert done.stdout.rstrip().endswith("held"), done.stdout + done.stderr
