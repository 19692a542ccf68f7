from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pages.page import Fault, Limits, PageReader, parse
from base.errors import PageError
from tests.kits.page_judge import RECORDED, broken, judge, ours, text_of, theirs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_recorded_pages_read_as_the_reference_parser_reads_them(path: Path):
    text = text_of(path)
    assert ours(text) == theirs(text)


def test_there_are_recorded_pages():
    assert len(RECORDED) >= 15


NAMES = st.from_regex(r"[a-z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
LABEL_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
LABEL_VALUES = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(["NaN", "Nan", "nan", "+Inf", "-Inf", "Inf", "1e5", "1E-5", "0", "-0.0", "007"]),
)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@st.composite
def sample_lines(draw: st.DrawFn, name: str) -> str:
    labels = draw(st.dictionaries(LABEL_NAMES, LABEL_VALUES, max_size=4))
    comma = draw(st.sampled_from([",", ", "])) if labels else ""
    inner = comma.join(f'{key}="{escaped(value)}"' for key, value in labels.items())
    braces = f"{{{inner}}}" if labels or draw(st.booleans()) else ""
    space = draw(st.sampled_from([" ", "  ", "\t"]))
    stamp = draw(st.one_of(st.just(""), st.integers(0, 2**45).map(lambda number: f" {number}")))
    value = draw(VALUES)
    # The reference reads a tab before the value and a space after it as one word.
    return f"{name}{braces}{' ' if stamp else space}{value}{stamp}"


@st.composite
def pages(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        if draw(st.booleans()):
            lines.append(f"# HELP {name} {escaped(draw(LABEL_VALUES))}")
        if draw(st.booleans()):
            lines.append(f"# TYPE {name} {draw(st.sampled_from(['gauge', 'counter', 'untyped']))}")
        lines += draw(st.lists(sample_lines(name), max_size=4))
        lines += draw(st.lists(st.sampled_from(["", "# a comment", "#"]), max_size=1))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


@settings(max_examples=300, deadline=None)
@given(pages())
def test_well_formed_pages_read_as_the_reference_parser_reads_them(text: str):
    assert ours(text) == theirs(text)


ODD_LINES = st.sampled_from(
    [
        "foo 1", "foo 2", "foo NaN", "foo", "foo x", "foo 1_0", "foo 1 5", "foo 2 6", "foo 1 2 3", "foo  4", "foo\t5",
        " foo 6", "foo 7 ", "foo 8\r", "foobar 3", "foo_total 3", 'foo{a="b"} 1', 'foo{a="b"} 2', 'foo{a="b"}3',
        'foo {a="b"} 4', 'foo{a="b",} 5', 'foo{a="b} 1', 'foo{a="x y"} 1', 'foo{a="x y"} 2', 'foo{a="x 1', "foo{} 1",
        'foo{a="b",a="c"} 1', "foo{a=b} 1", "{} 1", '{"foo.bar",a="b"} 1', "1foo 1", "foo 1 # {} 2", "", "#", "# TYPE",
        "# TYPE foo counter", "# TYPE foo gauge", "# HELP foo x", "\xff 1", 'foo{a="\\"b\\\\"} 1', "foo 1e400",
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(ODD_LINES, min_size=1, max_size=5), min_size=2, max_size=5))
def test_a_page_reads_the_same_after_any_other_page(texts: list[list[str]]):
    reader = PageReader()
    for lines in texts:
        body = "\n".join(["always 1", *lines]).encode("latin-1")
        page, alone = reader.read(body), parse_bytes(body)
        assert [repr(one) for one in page.samples()] == [repr(one) for one in alone.samples()]
        assert page.layout.types == alone.layout.types
        assert (page.faults, page.faults_total) == (alone.faults, alone.faults_total)


def parse_bytes(body: bytes):
    return PageReader().read(body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(body: bytes):
    reader = PageReader()
    for text in (body, b"foo 1\n" + body, b"foo 2\n" + body):
        try:
            page = reader.read(text)
        except PageError:
            continue
        assert len(page.values) == len(page.layout.series)


@pytest.mark.parametrize("value", ["1\t5", "1\x0b8", "", "\t", "1_0", "1\t1_0", "1\tx"])
def test_a_line_reads_the_same_whether_or_not_its_series_is_known(value: str):
    reader = PageReader()
    reader.read(b"foo 1\nbar 1\n")
    body = f"new 1\nfoo {value}\n".encode()
    page, alone = reader.read(body), PageReader().read(body)
    assert list(page.samples()) == list(alone.samples())
    assert page.faults == alone.faults


def test_ten_thousand_broken_pages_read_as_they_must():
    random, pages, refused = Random(152), [text_of(path).encode() for path in RECORDED], 0
    for _ in range(10_000):
        whole = random.choice(pages)
        start = random.randrange(len(whole))
        before = whole[start : start + random.choice((200, 2_000))]
        refused += judge(broken(before, random), before)
    assert 1_000 < refused < 9_000


def test_values_move_while_the_layout_stays_the_same_object():
    reader = PageReader()
    first = reader.read(b'a{x="1"} 1\nb 2\n')
    second = reader.read(b'a{x="1"} 1\nb 3\n')
    assert second.layout is first.layout
    assert (list(first.values), list(second.values)) == ([1, 2], [1, 3])


@pytest.mark.parametrize("line", ["foo 1_0", "foo x", "foo", "foo 1 2 3", 'foo{a="b 1'])
def test_a_value_that_goes_bad_is_noticed_on_a_page_already_known(line: str):
    reader = PageReader()
    reader.read(b"always 1\nfoo 1\n")
    page = reader.read(f"always 1\n{line}\n".encode())
    assert [one.name for one in page.samples()] == ["always"]
    assert [fault.line for fault in page.faults] == [2]


def test_a_new_series_gives_a_new_layout_and_keeps_the_others():
    reader = PageReader()
    first = reader.read(b"a 1\n")
    second = reader.read(b"a 1\nb 2\n")
    assert second.layout is not first.layout
    assert [one.name for one in second.layout.series] == ["a", "b"]


def test_malformed_lines_are_named_and_the_rest_goes_on():
    page = parse('good 1\nbad{x="1" 2\n\nworse\nlast{x="y"} Nan\n')
    assert [one.name for one in page.samples()] == ["good", "last"]
    assert [fault.line for fault in page.faults] == [2, 4]
    assert page.faults_total == 2
    assert all(fault.reason for fault in page.faults)


def test_kept_faults_are_bounded_but_all_are_counted():
    page = parse("good 1\n" + "bad\n" * 500)
    assert page.faults_total == 500
    assert len(page.faults) <= 20


@pytest.mark.parametrize("text", ["<html>\n<body>no</body>\n</html>", '{"error": "not found"}', "\x00\x01\x02"])
def test_what_is_no_metrics_page_says_so_and_names_the_line(text: str):
    with pytest.raises(PageError, match="line 1"):
        parse(text)


def test_an_empty_page_has_no_samples():
    assert list(parse("").samples()) == []


def test_bounds():
    with pytest.raises(PageError, match="bytes"):
        parse("a 1\n" * 10, Limits(bytes=20))
    with pytest.raises(PageError, match="series"):
        parse("".join(f"a{number} 1\n" for number in range(10)), Limits(series=5))
    long = parse('a 1\nb{x="' + "y" * 100 + '"} 1', Limits(line_bytes=50))
    assert [one.name for one in long.samples()] == ["a"]
    assert "bytes" in long.faults[0].reason
    wide = parse("a 1\nb{" + ",".join(f'x{number}="1"' for number in range(9)) + "} 1", Limits(labels=8))
    assert "8 labels" in wide.faults[0].reason


def test_families_join_the_parts_of_histograms_and_summaries():
    text = (
        '# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n# TYPE s summary\ns_sum 1\ns 1\nlone_count 1\n'
    )
    assert parse(text).layout.families() == ["h", "s", "lone_count"]


@settings(max_examples=200, deadline=None)
@given(pages(), st.data())
def test_a_series_that_is_there_twice_counts_once_and_is_told(text: str, data: st.DataObject):
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    again = data.draw(st.lists(st.sampled_from(lines), max_size=4)) if lines else []
    once, twice = parse(text), parse("\n".join([text.rstrip("\n"), *again]))
    assert list(map(repr, twice.samples())) == list(map(repr, once.samples()))
    assert twice.repeated == once.repeated + len(again)
    assert twice.faults_total == once.faults_total + len(again)


@pytest.mark.parametrize(
    "line",
    ['foo{b="2",a="1"} 7', 'foo{a="1",b="2"} 7', 'foo { a="1" , b="2" } 7', 'foo{a="1",b="2",c=""} 7',
     '{"foo",a="1",b="2"} 7', 'foo{a="1",b="2"} 7 1000'],
)  # fmt: skip
def test_the_order_of_labels_and_an_empty_one_make_no_other_series(line: str):
    reader = PageReader()
    for value in (3, 4):
        page = reader.read(f'foo{{a="1",b="2"}} {value}\n{line}\nbar {value}\n'.encode())
        assert [one.value for one in page.samples()] == [value, value]
        assert page.faults == (Fault(2, "the same series as line 1"),)
        assert (page.faults_total, page.repeated) == (1, 1)


def test_a_repeated_line_that_moves_or_goes_bad_does_not_count_either():
    reader = PageReader()
    layouts = [reader.read(b"foo 1\nfoo 2\nbar 3\n").layout, reader.read(b"foo 2\nfoo 9\nbar 3\n").layout]
    assert layouts[0] is layouts[1]
    page = reader.read(b"foo 2\nfoo x\nbar 4\n")
    assert [one.value for one in page.samples()] == [2, 4]
    assert page.faults == (Fault(2, "bad value"),)


def test_repeated_lines_are_bounded_with_the_others():
    with pytest.raises(PageError, match="more than 3 series"):
        parse("foo 1\n" * 4, Limits(series=3))
