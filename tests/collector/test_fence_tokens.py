"""The engine's canonical text, read by passes over all of it: against a reader that goes from sign to sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.embedded import pieces
from collector.embedded.canonical import Canonical
from collector.embedded.pieces import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
WORD = LETTERS + "0123456789"
PIECES = (
    *"'`\\\"\\'`()[],.=-+/*$#;:\0\x1f \n",
    *("''", "``", "'`'", "`'`", "\\'", "\\`", "\\\\", "\\n", "'a'", "`a/b`", "`SETTINGS`", "' FORMAT x'"),
    *(
        "a",
        "B1",
        "1",
        "1.5",
        "2a",
        "_",
        "é",
        "\N{NO-BREAK SPACE}",
        "\N{GRINNING FACE}",
        "\N{LEFT SINGLE QUOTATION MARK}",
    ),
    *("system", "SYSTEM", "system(", "FROM ", "FROM `/`", "table `a/`", "system.parts", " AS ", "JOIN "),
    *("SETTINGS ", "settings", " a = ", " FORMAT ", "CSV"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(st.characters(codec="utf-8"), max_size=60)


def tokens(text: str) -> Iterator[tuple[int, str]]:
    """Each token with its place; a sign that means nothing is a plus, a quote that is never closed takes the rest."""
    place = 0
    while place < len(text):
        start, sign = place, text[place]
        place += 1
        if sign in "'`":
            while place < len(text) and text[place] != sign:
                place += 2 if text[place] == "\\" else 1
            place = min(place + 1, len(text))
            yield start, sign + text[start + 1 : place - 1] + sign
        elif sign in WORD:
            while place < len(text) and text[place] in WORD:
                place += 1
            yield start, text[start:place]
        elif not sign.isspace():
            yield start, sign if sign in "()[],.=-" else "+"


def unquoted(token: str) -> str:
    letters = iter(token[1:-1] if token[0] in "'`" else token)
    known = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
    return "".join(known.get(after := next(letters, ""), after) if sign == "\\" else sign for sign in letters)


def named(token: str) -> str:
    return unquoted(token).lower() if token[0] in LETTERS + "`" else ""


@pytest.fixture(scope="module", params=[1, 3, 8, 1 << 15], ids=str)
def _piece(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_SIZE", request.param)
        yield


@pytest.mark.usefixtures("_piece")
@given(TEXTS)
def test_both_see_the_same_tokens_names_and_places(text: str):
    expected = [token for _, token in tokens(text)]
    found = Canonical(text, {"system", "a", "parts"})
    assert [found.at(index) for index in range(len(found))] == expected
    names = {named(token) for token in expected} - {""}
    assert names <= found.names
    assert {name for name in found.names if name[:1] in {*LETTERS}} <= names
    for name in ("system", "a", "parts"):
        assert list(found.places({name})) == [i for i, token in enumerate(expected) if named(token) == name]
        assert list(found.calls({name})) == [i for i in found.places({name}) if expected[i + 1 : i + 2] == ["("]]
    slashes = [i for i, token in enumerate(expected) if token[0] == "`" and "/" in named(token)]
    before = {"from", "join", "table", "."}
    assert list(found.paths()) == [i for i in slashes if i and expected[i - 1].lower() in before]
    assert [plain(token) for token in expected] == [unquoted(token) for token in expected]


@pytest.mark.usefixtures("_piece")
@given(TEXTS)
def test_the_format_is_cut_off_where_it_stands(text: str):
    found = [*tokens(text), (len(text), ""), (len(text), "")]
    for (place, word), (name_place, name), (_, after) in reversed([*zip(found, found[1:], found[2:], strict=False)]):
        if word == "FORMAT" and name[:1] in {*LETTERS, "`"} and after in {"", "SETTINGS"}:
            assert Canonical(text).answer() == (text[:place].rstrip(), unquoted(name), text[name_place + len(name) :])
            return
    assert Canonical(text).answer() == (text, "", "")


@pytest.mark.parametrize("piece", [64, 1 << 15])
def test_a_long_list_of_numbers_is_one_and_hides_nothing(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pieces, "_SIZE", piece)
    numbers = ", ".join(str(number) for number in range(20_000))
    text = f"SELECT url, a IN ({numbers}, 1.5, 2a, system.one), f(SETTINGS) AS `{numbers}` SETTINGS b = 7 FORMAT CSV"
    found = Canonical(text, {"url", "system"})
    assert len(found) < 40 * (20_000 * 7 // piece + 1)
    assert [found.at(index + 1) for index in found.places({"url", "system"})] == [".", ","]
    assert found.at(next(found.places({"system"})) - 2) == "2a"
    assert f"{numbers}" in found.names
    assert [(each.name, each.value) for each in found.settings()] == [("b", "7")]
    assert found.answer() == (text.removesuffix(" FORMAT CSV"), "CSV", "")
