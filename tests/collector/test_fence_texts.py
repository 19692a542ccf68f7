"""Texts of statements as our own code reads them: quotes as the engine has them, and time in proportion."""

from __future__ import annotations

import pytest

from collector.embedded.canonical import Assignment, Canonical, replace_tables
from collector.embedded.reader import masks
from collector.embedded.statement import before_data, output_clause, split_insert, tokens
from tests.kits.effort import in_proportion


@pytest.mark.parametrize(
    "text",
    [
        "SELECT \N{LEFT SINGLE QUOTATION MARK}a'; b\N{RIGHT SINGLE QUOTATION MARK} FORMAT CSV",
        "SELECT 1 AS \N{LEFT DOUBLE QUOTATION MARK}a`; b\N{RIGHT DOUBLE QUOTATION MARK} FORMAT CSV",
        "SELECT $a$ ' ; FORMAT JSON $a$ FORMAT CSV",
        "SELECT $$ ` $$, '$$' FORMAT CSV;",
        "SELECT 1 /* /* ' */ FORMAT JSON */ -- ' FORMAT JSON\n FORMAT CSV",
        "SELECT 1 AS FORMAT FORMAT CSV ; ",
        "SELECT 1 #! ' FORMAT XML\nFORMAT CSV -- FORMAT JSON",
        "SELECT (SELECT 1 AS format) FORMAT `CSV` SETTINGS max_threads = 1",
    ],
)
def test_the_tokenizer_reads_quotes_as_the_engine_does(text: str):
    place, form = output_clause(text)
    assert form == "CSV"
    assert text[place:].startswith("FORMAT ")


SHAPES = {
    "escapes": "SELECT \N{LEFT SINGLE QUOTATION MARK}" + "\\'",
    "single": "'",
    "double": '"',
    "back": "`\\",
    "curly": "\N{LEFT SINGLE QUOTATION MARK}\\'\N{RIGHT SINGLE QUOTATION MARK}",
    "open curly": "\N{LEFT SINGLE QUOTATION MARK}",
    "dollars": "$",
    "tags": "$a$b",
    "comments": "/*",
    "dashes": "- --",
    "hashes": "#",
    "brackets": "([{",
    "formats": " FORMAT JSON",
    "settings": " SETTINGS a = 1,",
    "names": "system.tables,",
    "mixed": "'`\"$\\",
}


def look(text: str) -> None:
    """Everything that looks at a text by itself, without the engine."""
    tuple(tokens(text))
    output_clause(text)
    before_data(text)
    split_insert(f"INSERT INTO t {text}")
    replace_tables(text, masks())
    statement = Canonical(text, {"system", "a"})
    tuple(statement.settings())
    tuple(statement.places(statement.names))
    tuple(statement.paths())
    statement.answer()


@pytest.mark.parametrize("shape", SHAPES)
def test_looking_at_a_text_takes_time_in_proportion(shape: str):
    pattern = SHAPES[shape]
    short, long = ((pattern * (size // len(pattern) + 1))[:size] for size in (4_096, 65_536))
    # Sixteen times the text: what is quadratic takes two hundred and fifty times as long.
    assert in_proportion(lambda: look(short), lambda: look(long), 80)


def test_many_names_are_looked_for_at_once():
    short, long = ("".join(f" FROM `a/{number}`" for number in range(count)) for count in (1_000, 16_000))

    def seek(text: str) -> None:
        assert sum(1 for _ in Canonical(text).paths()) == text.count("/")

    assert in_proportion(lambda: seek(short), lambda: seek(long), 80)


def test_settings_are_found_wherever_the_engine_writes_them():
    text = "SELECT settings, 'SETTINGS a' FROM (SELECT 1 SETTINGS `b` = 2, c = 'x\\'y') SETTINGS d = -3, e, f = DEFAULT"
    assert list(Canonical(text).settings()) == [
        Assignment("b", "2", inner=True),
        Assignment("c", "x'y", inner=True),
        Assignment("d", "-3", inner=False),
        Assignment("e", "1", inner=False),
        Assignment("f", None, inner=False),
    ]
    assert list(Canonical("SHOW SETTINGS LIKE 'a'").settings()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", ("SELECT 1", "", "")),
        ("SELECT 1 AS FORMAT", ("SELECT 1 AS FORMAT", "", "")),
        ("SELECT ' FORMAT CSV'", ("SELECT ' FORMAT CSV'", "", "")),
        ("SELECT 1 AS FORMAT FORMAT `Null`", ("SELECT 1 AS FORMAT", "Null", "")),
        ("SELECT 1 FORMAT CSV SETTINGS a = ' FORMAT XML'", ("SELECT 1", "CSV", " SETTINGS a = ' FORMAT XML'")),
    ],
)
def test_the_format_is_cut_off(text: str, expected: tuple[str, str, str]):
    assert Canonical(text).answer() == expected


def test_tables_with_paths_are_replaced_where_they_stand():
    masked = {"parts": "'' AS path"}
    inner = "(SELECT * REPLACE ('' AS path) FROM system.parts)"
    assert replace_tables("SELECT * FROM system.parts", masked) == (f"SELECT * FROM {inner} AS parts", 1)
    assert replace_tables("SELECT p.a FROM t INNER JOIN system.parts AS p ON 1", masked) == (
        f"SELECT p.a FROM t INNER JOIN {inner} AS p ON 1",
        1,
    )
    for text in ("SELECT 'FROM system.parts'", "SELECT 1 AS `FROM system.parts`", "SELECT 1 FROM system.parts_columns"):
        assert replace_tables(text, masked) == (text, 0)
