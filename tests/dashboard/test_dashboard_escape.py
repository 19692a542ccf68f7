"""Names as hostile as a client may send them, at every place where they are drawn, written or saved."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from analytics.series import Line
from base.foreign_text import legible
from dashboard import escape, figures
from dashboard.export import as_csv
from dashboard.figures import Interval, Lane, Style, Trace
from dashboard.theme import LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TIMES = [START + timedelta(seconds=10 * index) for index in range(6)]
STYLE = Style(LIGHT, UTC, (START, START + timedelta(seconds=60)))
HOSTILE = [
    '<a href="http://evil.example/x">open me</a>',
    "<img src=x onerror=alert(1)><b>big</b>",
    "![x](http://evil.example/a.png)",
    "[click](javascript:alert(1))",
    "http://evil.example and www.evil.example and who@evil.example",
    r"$\href{http://evil.example}{x}$ and $$x^2$$",
    ":red[all is broken] :material/home: :smile:",
    "`code` **bold** ~~gone~~ # head -> there",
    '=HYPERLINK("http://evil.example","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+cmd|x",
    "-2+3",
    "\t=1+1",
    "\r=1+1",
    "\uff1d1+1",
    "two\nlines\r\nand\u2028more",
    "right\u202eto left\u2066 mark\u200f",
    "zero\u200bwidth\x00null\x1b[31mred",
    "{name} %{x} {{format}} %s",
    "&lt;b&gt;&#36;",
    "x" * 5000,
    "e\u0301" + "\u0301" * 3000,
]
ids = [repr(name[:24]) for name in HOSTILE]


def every_figure(name: str) -> Iterator[Any]:
    """Each figure with the name at all places where a text goes in."""
    trace = Trace(name, [1.0, 2, 3, None, 5, 6], "#111111", text=[name] * 6)
    named = replace(STYLE, marks=[(TIMES[1], name)], bands=[(TIMES[2], TIMES[4], name)])
    for many in (1, 6):
        yield figures.lines(TIMES, [trace] * many, named, title=name, unit=name, limit=(2.0, name))
        yield figures.stack(TIMES, [trace] * many, named, title=name, unit="count")
    yield figures.percentiles(TIMES, {name: [1.0] * 6}, named, title=name, signal="queue", counts=[1] * 6)
    yield figures.heatmap(TIMES, [0.1, 1.0, 2.0], [[1] * 6, [2] * 6], named, title=name)
    yield figures.histogram([0.1, 1.0], [3], named, title=name, colour="#111111", cuts={name: 0.5})
    interval = Interval(name, 0.0, 1.0, "#111111", name)
    lane = Lane(name, name, [trace, replace(trace, name=name[::-1])])
    yield figures.story([interval], [float(at) for at in range(6)], [lane], named, total=1.0, span=(-1.0, 6.0))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_no_name_is_markup_for_plotly(name: str) -> None:
    made = escape.figure(name)
    assert not re.search(r"[<>$\n\r\t\u2028\u202e\u2066\u200b\x00\x1b]", made)
    assert html.unescape(made) == legible(name, escape.NAME)


@pytest.mark.parametrize(
    "name", ["".join(HOSTILE[:2]), "$x$\r\n\u202e{a}%{x}", "x" * 5000], ids=["tags", "marks", "long"]
)
def test_no_name_is_markup_in_any_figure(name: str) -> None:
    seen = 0
    for figure in every_figure(name):
        for text in texts(json.loads(figure.to_json())):
            own = re.sub(r"<span style='color:#[0-9a-f]{6}'>|</span>|<br>|<extra></extra>|<extra>%\{fullData.name}</extra>", "", text)  # fmt: skip  # noqa: E501 - what we write ourselves
            assert not re.search(r"[<>$\n\r\t\u2028\u202e\u2066\u200b\x00\x1b]", own), own
            assert len(text) <= 6 * 400 + 100
            seen += html.unescape(own)[:20] == legible(name)[:20]
    assert seen


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_no_name_is_markup_in_a_box_but_code(name: str) -> None:
    assert escape.prose(name).replace("<code>", "").replace("</code>", "").replace("`", "") == escape.page(
        name
    ).replace("`", "")


def test_commands_in_a_box_are_code() -> None:
    told = escape.prose("Type `servescope up --target <url>` once, then `make`; a ` alone is none.")
    assert told == (
        "Type <code>servescope up --target &lt;url&gt;</code> once, then <code>make</code>; a ` alone is none."
    )


def test_figures_show_names_as_they_are() -> None:
    figure = figures.lines(TIMES, [Trace("a<b & $c", [1.0] * 6, "#111111")] * 5, STYLE, title="t", unit="count")
    assert html.unescape(figure.data[0].name) == "a<b & $c"
    assert figures.CONFIG["typesetMath"] is False


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_no_name_is_a_mark_in_markdown(name: str) -> None:
    made = escape.markdown(name)
    assert not re.search(r"[*`\[\]()<>!$:#~|{}&@=]|\b_|_\b|\s[-_]|[-_.]\s", re.sub(r"\\[^\w\s]|\\_", "x", made)), made
    bare = re.sub(r"\\([^\w\s])", r"\1", made)  # what is left when escapes are read, as for addresses and pictograms
    assert not re.search(r"https?://|www\.|\w@\w|:[\w+/-]+:|->|--|<-", bare), bare
    assert bare.replace("\N{WORD JOINER}", "") == legible(name, escape.SENTENCE).strip()


def test_ordinary_names_have_nothing_unseen_in_them() -> None:
    for name in (
        "vllm-0:8000",
        "meta-llama/Llama-3.1-8B",
        "10.0.0.1:8000 · team a",
        "v1:9f3a",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u062f",
        "名前",
    ):
        assert re.sub(r"\\([^\w\s])", r"\1", escape.markdown(name)) == name
        assert escape.cell(name) == name
        assert html.unescape(escape.figure(name)) == name


@dataclass
class Result:
    times: list[datetime]
    lines: list[Line]


@dataclass
class Listed:
    name: str
    models: list[str]
    value: float


@dataclass
class Rows:
    rows: list[Listed]


@pytest.mark.parametrize("name", HOSTILE, ids=ids)
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    made = [
        as_csv(Result(TIMES, [Line(name, [-1.5] * 6, "count")])),
        as_csv(Rows([Listed(name, [name], -1.5)])),
        escape.frame(pd.DataFrame({name: [1.0], "who": [name], "odd": [-1.5]})).to_csv(index=False),
    ]
    for text in made:
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not [cell for cell in cells if re.match(r"\s*[=@+\uff1d]|[\t\r\n]", cell)]
        assert not [cell for cell in cells if cell.startswith("-") and cell != "-1.5"]
        assert "-1.5" in cells
        # An apostrophe may stand within as well, where lists are parted by tabs.
        plain = name.replace("\r\n", "\n").replace("\r", "\n").replace("'", "")
        assert any(plain in cell.replace("'", "") for cell in cells)


@pytest.mark.parametrize("kind", ["object", "str", "category"])
def test_tables_keep_what_is_no_formula(kind: str) -> None:
    given = pd.DataFrame({"who": pd.Series(["=1", "-5", "plain", None], dtype=kind), "n": [1, -2, 3, 4]})
    made = escape.frame(given)
    assert list(made["who"])[:3] == ["'=1", "-5", "plain"]
    assert made["who"].isna()[3]
    assert list(made["n"]) == [1, -2, 3, 4]
    twice = escape.frame(pd.DataFrame([["=1", "=2"]], columns=["a", "a"]))
    assert twice.to_numpy().tolist() == [["'=1", "'=2"]]


@pytest.mark.parametrize("unseen", ["\ufeff", "\x00", "\u200b \u202e", "\x1f", "\xad"])
def test_what_is_not_seen_hides_no_formula(unseen: str) -> None:
    assert escape.cell(f"{unseen}=1+1") == f"'{unseen}=1+1"


@pytest.mark.parametrize("parted", ["a;", "a;;", "a; b; ", "a\t", "a;\ufeff"])
@pytest.mark.parametrize("formula", ['=HYPERLINK("http://evil.example")', "-2+3+cmd|x", "@SUM(1)", "\uff0b1", "+x"])
def test_no_part_of_a_name_is_a_formula_where_lists_are_parted_otherwise(parted: str, formula: str) -> None:
    made = escape.cell(f"{parted}{formula};b")
    assert isinstance(made, str)
    assert not [one for one in re.split("[;\t]", made) if re.match(r"[\s\ufeff]*[=@+\-\uff0b]", one)]
    assert made.replace("'", "") == f"{parted}{formula};b"


@pytest.mark.parametrize("text", ["a;-5", "a; -1.5;b", "-1.5", "a\t+2\nb", "a-b;c=d", "x\n-1"])
def test_numbers_and_marks_between_words_stay(text: str) -> None:
    assert escape.cell(text) == text


def test_html_has_no_tags_of_others() -> None:
    assert escape.page('<a href="x">\n\u202e') == "&lt;a href=&quot;x&quot;&gt; \ufffd"


def test_what_is_cut_ends_in_an_ellipsis() -> None:
    assert [legible("abcdef", most) for most in (3, 6, 9)] == ["ab…", "abcdef", "abcdef"]
    assert all(len(one) <= len(other) for one, other in pairwise(legible("e\u0301" * 50, most) for most in (5, 10, 20)))
