"""CPU of the reader's guard, its own work on a text of 256 KiB: against one pass of a regular expression over it.

The engine's lists are real; its reading and writing of the text is left out: it hands back what it is given, so that
texts stand before the guard which it would never write. A text that is refused costs what was done until then.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import re
import string
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from collector.embedded.engine import Engine
from collector.embedded.guard import Guard
from collector.embedded.limits import Limits
from collector.embedded.reader import STATEMENT_BYTES
from collector.embedded.refusal import FenceError
from collector.embedded.request import Plan, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.embedded.engine import Handle

GOAL_MILLISECONDS: Final = 50.0
SHAPES: Final = {
    "tags": "$a$b",
    "dots": "a.",
    "numbers": "1 ",
    "fractions": "1. + ",
    "operators": "a+",
    "closers": ")",
    "brackets": "()",
    "commas": ", ",
    "letters": "a ",
    "names of two letters": "ab ",
    "blanks": "\N{NO-BREAK SPACE}a",
    "strings": "'',",
    "strings side by side": "''",
    "strings with escapes": "'\\n',",
    "strings with backquotes": "'`',",
    "backquotes": "`a`,",
    "empty backquotes": "``",
    "open backquotes": "`\\",
    "paths": "`/`, ",
    "quotes in quotes": "'`' AS `'`, ",
    "words of clauses": "FORMAT, ",
    "settings": "SETTINGS, ",
    "table functions as names": "url, ",
    "system tables": "FROM system.one, ",
    "hidden columns": "FROM system.parts, ",
    "list of numbers": "10, ",
    "list of names": "'user-1', ",
}
# What was found to cost most where names are counted, by trying.
COUNTED: Final = {
    "commas beside subqueries": ("SELECT 1 FROM (SELECT 1 AS c), c", ","),
    "dots beside subqueries": ("SELECT (SELECT 1) AS x, x FROM a", ".a"),
    "brackets beside subqueries": ("SELECT (SELECT 1 AS c)", ", ((c))"),
    "uses of a name": ("WITH c AS (SELECT 1) SELECT 1", ", c"),
    "aliases of one name": ("SELECT (SELECT 1) AS x, x", " AS x"),
    "aliases of bracketed names": ("SELECT (SELECT 1) AS x, x", ", (x) AS y"),
    "strings beside subqueries": ("SELECT (SELECT 1) AS x, x", ", ''"),
    "names in backquotes beside subqueries": ("SELECT (SELECT 1) AS `a b`", ", `a b`"),
    "quotes in names beside subqueries": ("SELECT (SELECT 1) AS a FROM (SELECT 1 AS b)", "{}`'``a`url(.b"),
    "common table expressions": ("WITH a AS (SELECT 1) SELECT 1", " c{}a(b) AS (. FROM "),
    "numbers for columns": ("SELECT (SELECT 1) AS c, c ORDER BY 1", ", 1"),
    "numbers for columns beside names": ("SELECT (SELECT 1) AS c, c ORDER BY 1", ", c, 1"),
    "short lists of numbers": ("SELECT (SELECT 1) AS c, c FROM t ORDER BY 1", ", (1, 2, 3)"),
    "different numbers for columns": ("SELECT (SELECT 1) AS c, c ORDER BY 1", ", {}, a"),
    "what is done to many columns": ("SELECT (SELECT 1) AS c, c", ", * APPLY c"),
    "system tables beside strings": ("SELECT (SELECT 1) AS a, a", "system.parts'\\''"),
}
_PASS: Final = re.compile(r"\w+|\S")


class _Echo:
    """An engine's handle that writes every text as it stands."""

    def canonical(self, sql: str) -> str:
        return sql

    def classify(self, _: str) -> tuple[str, int]:
        return "CONTROL", 1

    def drain(self) -> None:
        return


def texts() -> dict[str, str]:
    """Texts of 256 KiB by what they are made of: a pattern again and again, or names of which no two are the same."""
    made = {}
    for name, pattern in SHAPES.items():
        size = STATEMENT_BYTES // len(pattern.encode())
        made[name] = f"SELECT {pattern * size}".encode()[:STATEMENT_BYTES].decode(errors="ignore")
    names = ["".join(letters) for letters in itertools.product(string.ascii_letters, repeat=3)]
    made["many names"] = f"SELECT {','.join(names)}"[:STATEMENT_BYTES]
    tests = " AND ".join(f"(tenant != 'user-{number}')" for number in range(STATEMENT_BYTES // 30))
    made["SELECTs with conditions"] = _nested("tenant", f"requests WHERE {tests}")
    listed = ", ".join(f"'user-{number}'" for number in range(STATEMENT_BYTES // 15))
    made["SELECTs with a list"] = _nested("tenant", f"requests WHERE tenant IN ({listed})")
    sums = ", ".join(f"sum(a{number}) AS s{number}" for number in range(STATEMENT_BYTES // 24))
    made["SELECTs with aliases"] = _nested(sums, "requests")
    twice = ", ".join(f"a{number} AS s{number}, s{number}" for number in range(STATEMENT_BYTES // 25))
    made["SELECTs with aliases that are used"] = _nested(twice, "requests")
    made |= {name: _again(head, piece) for name, (head, piece) in COUNTED.items()}
    made["many names in backquotes"] = f"SELECT {','.join(f'`{name}`' for name in names)}"[:STATEMENT_BYTES]
    return made


def _again(head: str, piece: str) -> str:
    parts = (piece.format(number) for number in range(STATEMENT_BYTES // len(piece) + 1))
    return "".join((head, *parts)).encode()[:STATEMENT_BYTES].decode(errors="ignore")


def _nested(columns: str, rest: str) -> str:
    return f"SELECT count() FROM (SELECT {columns} FROM {rest}) AS few"  # noqa: S608 - the guard's own reading alone


def cost(work: Callable[[], object], rounds: int) -> float:
    """Milliseconds of CPU, the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        begun = time.thread_time_ns()
        work()
        best = min(best, (time.thread_time_ns() - begun) / 1e6)
    return best


def measure(guard: Guard, text: str, rounds: int) -> tuple[float, float]:
    """The guard's milliseconds, and those of one pass of a regular expression."""
    ask, plan, handle = parse("POST", {}, {}, "reader"), Plan(text), cast("Handle", _Echo())

    def judge() -> None:
        with contextlib.suppress(FenceError):
            guard.admit(handle, ask, plan)

    def read() -> None:
        for _ in _PASS.finditer(text):
            pass

    return cost(judge, rounds), cost(read, rounds)


def main() -> None:
    """Print one JSON object per text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 10")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the output is always JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servescope-bench-") as folder:
        engine = Engine(Path(folder), Limits())
        engine.open()
        guard = Guard(engine)
        for name, text in texts().items():
            ours, theirs = measure(guard, text, 3 if arguments.quick else 10)
            figure: dict[str, object] = {
                "name": f"guard_{name.replace(' ', '_')}",
                "value": round(ours, 1),
                "unit": "ms",
            }
            figure |= {"reference": "re.finditer over the same text", "reference_value": round(theirs, 1)}
            figure |= {"ratio": round(ours / theirs, 2), "goal": GOAL_MILLISECONDS, "met": ours <= GOAL_MILLISECONDS}
            print(json.dumps(figure), flush=True)
        engine.close()


if __name__ == "__main__":
    main()
