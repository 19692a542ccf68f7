"""What must hold of the page parser whatever it reads, and pages to try it with: recorded ones, and what becomes of
them when somebody breaks them."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from agent.pages.page import Limits, PageReader
from base.errors import PageError

if TYPE_CHECKING:
    from random import Random

    from agent.pages.page import Page

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = sorted((*FIXTURES.glob("*/metrics_*.txt"), *FIXTURES.glob("*/metrics_*.txt.gz")))

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]{0,200}"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]{0,200}="(?:[^"\\\n\r\x00-\x1f\x7f-\x9f]|\\[\\n"])*"'
_NUMBER = r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?|Inf|NaN)"
_WELL_FORMED = re.compile(
    rf"(?:# HELP {_NAME} [ -~]*|# TYPE {_NAME} (?:counter|gauge|untyped)|"
    rf"{_NAME}(?:\{{(?:{_LABEL}(?:,{_LABEL})*)?\}})? {_NUMBER}(?: [0-9]{{1,15}})?|)"
)
_TYPE = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)
_ONE_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"')


def text_of(path: Path) -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def ours(text: str) -> Counter[tuple[object, ...]]:
    page = PageReader().read(text.encode())
    assert page.faults_total == page.repeated, page.faults
    return Counter((one.name, *sorted(one.labels.items()), repr(one.value), one.timestamp) for one in page.samples())


def theirs(text: str) -> Counter[tuple[object, ...]]:
    declared = {line.split()[2] for line in text.split("\n") if line.startswith("# TYPE")}

    def original(kind: str, name: str) -> str:
        # prometheus_client renames a counter without _total to the OpenMetrics name
        return name.removesuffix("_total") if kind == "counter" and name not in declared else name

    first: dict[object, tuple[object, ...]] = {}  # of a series that is there twice, Prometheus keeps the first line
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            name = original(family.type, one.name)
            series = (name, *sorted(pair for pair in one.labels.items() if pair[1]))
            first.setdefault(series, (name, *sorted(one.labels.items()), repr(float(one.value)), one.timestamp))
    return Counter(first.values())


def well_formed(text: str) -> bool:
    """Whether every line is one that nobody reads in two ways."""
    for line in text.split("\n"):
        if len(line) > Limits().line_bytes or _WELL_FORMED.fullmatch(line) is None:
            return False
        if line.startswith("#"):
            continue  # a comment has no labels, and looking for them in a long one takes seconds
        names = _ONE_LABEL.findall(line)
        if len(names) != len(set(names)):
            return False
    declared = _TYPE.findall(text)
    return len(declared) == len(set(declared))


def judge(body: bytes, before: bytes = b"up 1\n") -> bool:
    """Read a page by itself and after another one; whether it was refused.

    Raises:
        AssertionError: It is read in two ways, or not as the reference parser reads it.
        Exception: Of the parser, and not one that is its own.
    """
    alone = _read(PageReader(), body)
    reader = PageReader()
    _read(reader, before)
    assert _told(_read(reader, body)) == _told(alone)
    assert _told(_read(reader, body)) == _told(alone)
    if alone is None:
        return True
    assert len(alone.values) == len(alone.layout.series) <= len(body)
    assert len(alone.faults) <= 20
    text = body.decode(errors="replace")
    if "\ufffd" not in text and well_formed(text):
        assert ours(text) == theirs(text)
    return False


def _read(reader: PageReader, body: bytes) -> Page | None:
    try:
        return reader.read(body)
    except PageError:
        return None


def _told(page: Page | None) -> object:
    if page is None:
        return None
    return [repr(one) for one in page.samples()], page.layout.types, page.faults, page.faults_total, page.repeated


def broken(page: bytes, random: Random) -> bytes:
    """A page with one to eight things done to it that happen to pages, or that somebody does to them."""
    for _ in range(random.randint(1, 8)):
        page = random.choice(_WAYS)(page, random)
    return page


def _span(page: bytes, random: Random, longest: int) -> tuple[int, int]:
    start = random.randrange(len(page) + 1)
    return start, min(len(page), start + random.randint(1, longest))


def _cut(page: bytes, random: Random) -> bytes:
    return page[: random.randrange(len(page) + 1)]


def _drop(page: bytes, random: Random) -> bytes:
    start, end = _span(page, random, 64)
    return page[:start] + page[end:]


def _double(page: bytes, random: Random) -> bytes:
    start, end = _span(page, random, 512)
    return page[:end] + page[start:end] * random.randint(1, 3) + page[end:]


def _flip(page: bytes, random: Random) -> bytes:
    start, _ = _span(page, random, 1)
    return page[:start] + bytes([random.randrange(256)]) + page[start + 1 :]


def _put(page: bytes, random: Random) -> bytes:
    start, _ = _span(page, random, 1)
    return page[:start] + random.choice(_ODD) + page[start:]


def _swap(page: bytes, random: Random) -> bytes:
    lines = page.split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _value(page: bytes, random: Random) -> bytes:
    lines = page.split(b"\n")
    index = random.randrange(len(lines))
    lines[index] = lines[index].rpartition(b" ")[0] + b" " + random.choice(_VALUES)
    return b"\n".join(lines)


_WAYS = (_cut, _drop, _double, _flip, _put, _swap, _value)
_VALUES = (
    *(b"NaN", b"+Inf", b"-Inf", b"nan", b"infinity", b"-0.0", b"1e400", b"1_0", b"0x10", b"\xd9\xa1", b"1" * 400),
    *(b"", b"1 2", b"1\t2", b"1 NaN", b"1 1e400", b"1 2 3", b'1 # {a="b"} 1'),
)
_ODD = (
    *_VALUES,
    *(b'"', b"\\", b"{", b"}", b",", b"=", b"#", b" ", b"\n", b"\r", b"\t", b"\0", b"\x0b", b"\x0c", b"\x1c", b"\x85"),
    *(b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b'\\"', b"\\n", b'{a="b"}'),
    *(b"# TYPE ", b"# TYPE a b", b"# EOF\n", b'a="b",' * 70, b"x" * 70_000, b"\n" * 200),
)
