"""Texts from elsewhere, made harmless for each place where they are shown: figures, Markdown, HTML, spreadsheets.

A tenant, a model or an instance is called whatever a client or a server says; no name may become a link, a picture, a
formula or a colour.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final

from base.foreign_text import legible

if TYPE_CHECKING:
    import pandas as pd

NAME: Final = 60
"""Letters of a name in a figure."""
SENTENCE: Final = 400
"""Letters of a name or sentence on a page."""
_PUNCTUATION: Final = re.compile(r"(?<![^\W_])[-_.]|[-_.](?![^\W_])|[!-,/:-@\[-^`{-~]")
"""All that may be a mark; a dot, a dash or a line inside a word is none."""
_JOINED: Final = re.compile(
    r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?<=ftp)(?=://)|(?<=[\w.+-])(?=@\w)|(?<=:)(?=[\w+\-/]+:)|(?<=-)(?=[->])|(?<=<)(?=-)",
    re.IGNORECASE,
)
"""Where Markdown's addresses, pictograms and arrows are recognised in plain text, after escapes are read."""
_CODE: Final = re.compile(r"`([^`]+)`")
_APART: Final = "\N{WORD JOINER}"
_UNSEEN: Final = r"[\s\x00-\x1f\x7f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*"
_SIGN: Final = (
    r"[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]"
)
_FORMULA: Final = re.compile(rf"^[\t\r\n]|^{_UNSEEN}{_SIGN}")
_WITHIN: Final = re.compile(rf"(?<=[;\t])(?={_UNSEEN}{_SIGN})(?!\s*[+-]?\d+([.,]\d+)?\s*([;\t\n]|$))")
"""Where a spreadsheet begins another cell, if its lists are parted by semicolons or tabs."""
_NUMBER: Final = re.compile(r"^\s*[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\s*$")


def figure(text: str, most: int = NAME) -> str:
    """For Plotly's texts, which know tags, entities and formulas between dollar signs."""
    return html.escape(legible(text, most), quote=False).replace("$", "&#36;")


def markdown(text: str, most: int = SENTENCE) -> str:
    """For Streamlit's Markdown: nothing in it is read as a mark, an address, a pictogram or a formula."""
    return _PUNCTUATION.sub(r"\\\g<0>", _JOINED.sub(_APART, legible(text, most).strip()))


def page(text: str, most: int = SENTENCE) -> str:
    """For HTML, in text and in attributes."""
    return html.escape(legible(text, most))


def prose(text: str, most: int = SENTENCE) -> str:
    """For HTML, in text: as `page`, and what stands between backticks is shown as code."""
    return _CODE.sub(r"<code>\1</code>", page(text, most))


def cell(value: object) -> object:
    """For spreadsheets, in files and from the clipboard: a text that would be a formula gets a leading apostrophe.

    Numbers stay as they are, also as text. A lone carriage return, which not every writer of such files puts between
    quotes, becomes a line feed: else it would begin a row.
    """
    if not isinstance(value, str):
        return value
    text = _WITHIN.sub("'", value.replace("\r\n", "\n").replace("\r", "\n"))
    return f"'{text}" if _FORMULA.search(text) and not _NUMBER.match(text) else text


def frame(given: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells and heads are `cell`s: its viewer can copy it and save it."""
    import pandas as pd  # noqa: PLC0415 - what escapes texts alone needs no pandas

    made = given.copy()
    made.columns = pd.Index([cell(name) for name in made.columns])
    for place, kind in enumerate(given.dtypes):
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_datetime64_any_dtype(kind)):
            made.isetitem(place, [cell(value) for value in given.iloc[:, place]])
    return made
