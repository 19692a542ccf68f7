"""A reader's handle by itself, without the guard: what the engine refuses it, and what the handle does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.kits.store_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# The engine lives in a process of its own: there can be one in each.
SCRIPT = """
import json, sys
from pathlib import Path
from collector.embedded.engine import Answer, Engine
from collector.embedded.limits import Limits
from collector.embedded.errors import QueryError
from collector.embedded.guard import Guard
from collector.embedded.request import Plan, parse

folder = Path(sys.argv[1])
engine = Engine(folder, Limits())
engine.open()
owner = engine.handle("owner")
owner.query("CREATE TABLE guarded (a UInt32) ENGINE = MergeTree ORDER BY a")
owner.query("INSERT INTO guarded VALUES (1)")

def handle(work, sql):
    # A handle that has failed is never used again.
    reader = engine.handle("reader")
    try:
        return work(reader, sql)
    except Exception as error:
        return str(error)
    finally:
        reader.close()

def past(reader, sql):
    # Straight into the engine, past guard and handle, after the handle's own statement: as a second one would run.
    reader.query("SELECT 1")
    for statement in sql.split(" ;; "):
        data = reader._connection.query(statement, "TabSeparated").bytes().decode()
    return "ran: " + data

def through(reader, sql):
    return "ran: " + reader.query(sql).data.decode()

def answered(reader, sql):
    answer = Answer(sql, "FORMAT TSV", "TSV")
    reader.answer(answer, str(folder / "answer"), "tag", {})
    return "ran: " + (folder / "answer").read_text()

def twice(reader, sql):
    reader.use({"max_threads": "1"})
    reader.use({"max_threads": "2"})
    return "ran"

def admitted(guard):
    reader, largest = engine.handle("reader"), 0
    for number in range(90):
        text = "SELECT %d AS %s" % (number, "x" * 28000)
        guard.admit(reader, parse("POST", {}, {}, "reader"), Plan(text))
        largest = max(largest, guard._remembered)
    reader.close()
    return [len(guard._admitted), largest]

work = {"past": past, "through": through, "answered": answered, "twice": twice}
found = [handle(work[how], sql.replace("FOLDER", str(folder))) for how, sql in json.loads(sys.argv[2])]
found.append([path.name for path in folder.iterdir()])
found.append(admitted(Guard(engine)))
owner.close()
engine.close()
print(json.dumps(found))
"""

ALL = "SET ROLE ALL ;; "
WHATEVER_ROLE = (
    "INSERT INTO guarded VALUES (2)",
    "INSERT INTO FUNCTION file('FOLDER/written', 'TSV', 'a UInt8') SELECT 1",
    "CREATE TABLE made (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE made (a UInt8)",
    "DROP TABLE guarded",
    "ALTER TABLE guarded DELETE WHERE 1",
    "TRUNCATE TABLE guarded",
    "CREATE FUNCTION f AS x -> x",
    "GRANT ALL ON *.* TO reader",
    "SELECT * FROM file('/etc/hostname', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1', 'LineAsString')",
    "SELECT * FROM sqlite('FOLDER/a.db', 'a')",
    "SELECT * FROM format(Parquet, 'PAR1')",
    "SET readonly = 0",
    "SET readonly = 2",
    "SET profile = 'default'",
    "SET max_threads = 64",
    "SET output_format_schema = 'FOLDER/written'",
    "SELECT 1 SETTINGS output_format_schema = 'FOLDER/written'",
    "SELECT 1 SETTINGS max_memory_usage = 0",
)
REFUSED = (
    ("statement", "SET ROLE owner"),
    ("statement", "SET ROLE ALL"),
    ("statement", "SET max_threads = 1"),
    ("statement", "SELECT 1 INTO OUTFILE 'FOLDER/written'"),
    ("statement", "INSERT INTO guarded VALUES (2)"),
    ("statement", "KILL QUERY WHERE 1"),
    ("statements", "SELECT 1; SET ROLE owner"),
    ("statements", "SELECT 1; SELECT 1 INTO OUTFILE 'FOLDER/written'"),
    ("statements", "SELECT 1 PARALLEL WITH SELECT 2"),
)


def run(folder: Path, asked: list[tuple[str, str]]) -> list[Any]:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    asked = [("past", ALL + sql) for sql in WHATEVER_ROLE]
    asked += [(how, sql) for how in ("through", "answered") for _, sql in REFUSED]
    asked += [
        ("past", "SET ROLE owner ;; SELECT currentRoles()"),
        ("past", "SET ROLE owner ;; SELECT count() FROM guarded"),
        ("past", "SELECT count() FROM guarded"),
        ("through", "SELECT count() FROM guarded"),
        ("answered", "SELECT count() FROM guarded"),
        ("twice", ""),
        ("through", "SELECT * FROM nothing.here"),
        ("through", "SELECT throwIf(1, 'FOLDER')"),
    ]
    folder = tmp_path_factory.mktemp("handle") / "data"
    found = run(folder, asked)
    left, remembered = found[-2:]
    assert "written" not in left
    result = dict(zip(asked, found, strict=False))
    result["files", ""] = " ".join(left)
    result["remembered", ""] = json.dumps(remembered)
    return result


@pytest.mark.parametrize("sql", WHATEVER_ROLE)
def test_a_second_statement_could_do_nothing_under_any_role(answers: dict[tuple[str, str], str], sql: str):
    found = answers["past", ALL + sql]
    assert found.startswith("Code: ")
    assert any(f"Code: {code}." in found for code in (164, 452, 497)), found
    assert "ran" not in found[:5]


def test_the_role_called_owner_holds_nothing(answers: dict[tuple[str, str], str]):
    assert answers["past", "SET ROLE owner ;; SELECT currentRoles()"] == "ran: ['owner']\n"
    assert "Code: 497" in answers["past", "SET ROLE owner ;; SELECT count() FROM guarded"]
    assert answers["past", "SELECT count() FROM guarded"] == "ran: 1\n"
    # The name of the role that does hold the owner's rights is nowhere on the disk.
    assert ".xml" not in answers["files", ""]


@pytest.mark.parametrize("how", ["through", "answered"])
@pytest.mark.parametrize(("rule", "sql"), REFUSED)
def test_the_handle_itself_runs_one_reading_statement(
    answers: dict[tuple[str, str], str], how: str, rule: str, sql: str
):
    found = answers[how, sql]
    # With a destination already in it, or a format behind a second statement, the text is not even a statement.
    expected = {f"[fence: {rule}]"} | ({"[fence: statement]", "[fence: statements]"} if how == "answered" else set())
    assert any(mark in found for mark in expected), found


def test_a_locked_handle_reads_and_takes_no_more_settings(answers: dict[tuple[str, str], str]):
    assert answers["through", "SELECT count() FROM guarded"] == "ran: 1\n"
    assert answers["answered", "SELECT count() FROM guarded"] == "ran: 1\n"
    assert "[fence: setting]" in answers["twice", ""]


def test_no_error_names_the_data_folder(answers: dict[tuple[str, str], str]):
    assert "<data>" in answers["through", "SELECT throwIf(1, 'FOLDER')"]


def test_what_the_guard_remembers_is_bounded_in_bytes(answers: dict[tuple[str, str], str]):
    count, size = json.loads(answers["remembered", ""])
    assert 0 < count < 90
    assert size <= 4 << 20
