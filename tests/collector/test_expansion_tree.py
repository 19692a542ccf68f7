"""No statement is counted as fewer SELECTs than the engine's own tree of it has."""

from __future__ import annotations

import random
import re
import urllib.error
from typing import TYPE_CHECKING, Final

import pytest

from collector.embedded.canonical import Canonical
from collector.embedded.expansion import selects

if TYPE_CHECKING:
    from tests.kits.store_process import StoreServer

MANY: Final = 10**6
COLUMNS: Final = "(SELECT 1 AS c1, 2 AS c2, 3 AS c3)"
QUERY: Final = re.compile(r"^ *QUERY id: ", re.MULTILINE)


class Maker:
    """Makes statements that use names, numbers for columns and what is done to many columns."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = 0

    def select(self, depth: int, scope: tuple[str, ...] = (), columns: int = 0) -> str:
        """A SELECT, of so many columns where that matters; deeper ones are plainer."""
        choose = self._random
        ahead, tables = [], [COLUMNS, f"{COLUMNS} AS t"]
        if depth and choose.random() < 0.4:
            if choose.random() < 0.5:
                tables.append(table := self._name())
                ahead.append(f"{table} AS ({self._inner(depth)})")
            else:
                ahead.append(f"{self._expression(depth - 1, scope)} AS {(name := self._name())}")
                scope = (*scope, name)
        items = []
        for _ in range(columns or choose.randint(1, 3)):
            item = self._expression(depth, scope)
            if choose.random() < 0.4:
                item = f"{item} AS {(name := self._name())}"
                scope = (*scope, name)
            items.append(item)
        if depth and not columns and choose.random() < 0.15:
            items.insert(choose.randint(0, len(items)), self._many(depth, scope))
        if depth and choose.random() < 0.3:
            tables.append(f"({self._inner(depth)}) AS t")
        source = ", ".join(choose.choices(tables, k=choose.choice((1, 1, 1, 2))))
        sql = f"SELECT {', '.join(items)} FROM {source}"
        if depth and choose.random() < 0.3:
            sql += f" WHERE {self._expression(depth - 1, scope)}"
        return f"WITH {', '.join(ahead)} {sql}" * bool(ahead) + sql * (not ahead) + self._clauses(len(items), scope)

    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _inner(self, depth: int) -> str:
        """Something with the columns that all others name."""
        return f"SELECT {self._expression(depth - 1, ())} AS c1, 2 AS c2, 3 AS c3"

    def _expression(self, depth: int, scope: tuple[str, ...]) -> str:
        choose = self._random
        plain = ("c1", "c2", "1", "7", *scope, *scope)
        kind = choose.random()
        if not depth or kind < 0.3:
            return choose.choice(plain)
        if kind < 0.5:
            return f"({choose.choice(plain)} IN ({self.select(depth - 1, (), 1)}))"
        if kind < 0.6:
            return f"({self.select(depth - 1, (), 1)} LIMIT 1)"
        if kind < 0.7:
            return f"greatest({self._expression(depth - 1, scope)}, 2)"
        if kind < 0.8:
            return f"(({self._expression(depth - 1, scope)}, 5) AS {(name := self._name())}).1 + {name}.2"
        return f"({self._expression(depth - 1, scope)} + {self._expression(depth - 1, scope)})"

    def _many(self, depth: int, scope: tuple[str, ...]) -> str:
        inner = self._expression(depth - 1, (*scope, "x"))
        return self._random.choice(
            (
                "*",
                f"* APPLY(x -> {inner})",
                f"COLUMNS('c[12]') APPLY(x -> {inner})",
                f"* EXCEPT (c2) APPLY(toString) APPLY(x -> {inner})",
                f"* REPLACE ({inner.replace('x', 'c1')} AS c1)",
            )
        )

    def _clauses(self, columns: int, scope: tuple[str, ...]) -> str:
        choose = self._random
        places = [str(choose.choice((place, place, -place))) for place in choose.choices(range(1, columns + 1), k=3)]
        listed = ", ".join(places[: choose.randint(1, 3)])
        several = choose.choice(("ALL", listed, listed, ", ".join(map(str, range(1, columns + 1)))))
        if choose.random() < 0.3:
            several = choose.choice((f"{several} WITH ROLLUP", f"GROUPING SETS (({listed}), ({places[0]}))", several))
            return f" GROUP BY {several}"
        sql = ""
        if choose.random() < 0.3:
            order = choose.choice(
                ("ALL", f"{places[0]} DESC, {choose.choice(('c1', *scope))}", f"({places[0]})", listed)
            )
            sql += f" ORDER BY {order}"
        if choose.random() < 0.2:
            sql += f" LIMIT 1 BY {listed}"
        return sql


def compared(server: StoreServer, sql: str) -> tuple[int, int] | None:
    """SELECTs in the engine's tree, and as they are counted; None for what the engine can't resolve."""
    try:
        tree = server.ask(f"EXPLAIN QUERY TREE passes = 1 {sql} FORMAT TSVRaw")
    except urllib.error.HTTPError:
        return None
    canonical = server.ask(f"SELECT formatQuerySingleLine($sql${sql}$sql$) FORMAT TSVRaw").rstrip("\n")
    return len(QUERY.findall(tree)), selects(Canonical(canonical).outline, MANY)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_counted_too_low(store_server: StoreServer, seed: int):
    maker = Maker(seed)
    found = []
    for _ in range(100):
        sql = maker.select(3)
        numbers = compared(store_server, sql)
        if numbers is not None:
            found.append(numbers)
            assert numbers[0] <= numbers[1], sql
    assert len(found) > 20
    assert sum(engine == counted > 1 for engine, counted in found) > len(found) / 5  # nor is all too high
