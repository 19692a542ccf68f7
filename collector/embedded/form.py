"""Bodies that are forms (RFC 7578): a statement with parameters that are too long for a URL, as drivers send them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from collector.embedded.errors import BAD_ARGUMENTS, QueryError, refused
from collector.embedded.unpack import read_some

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

    from collector.embedded.body import Body
    from collector.embedded.request import Ask

_PIECE = 64 * 1024
_FIELDS = 1000
_NAME = 1024
_PARAMETER = "param_"
_FIX = "A form has one field query, and a field param_name for each value; settings belong into the URL"


def is_form(content_type: str) -> bool:
    """Whether a ``Content-Type`` is that of a form with parts."""
    return content_type.lower().startswith("multipart/")


def with_form(ask: Ask, body: Body, content_type: str) -> Ask:
    """What is asked for by URL and form together; of the body nothing is left.

    The field ``query`` follows the statement of the URL, as at ClickHouse; ``param_name`` is the value of
    ``{name:Type}``. Reads files: call it off the event loop.

    Args:
        ask: What URL and headers say.
        body: The form, as it came.
        content_type: Names the boundary of its parts.

    Raises:
        QueryError: It is no whole form, a field is unknown, doubled, nameless or no UTF-8 (36), or a file (48).
    """
    fields = _fields(body, ask, content_type)
    body.clear()
    text = fields.pop("query", "")
    parameters = {name.removeprefix(_PARAMETER): value for name, value in fields.items()}
    for name in parameters:
        if name in ask.parameters:
            raise _bad(f"param_{name} is given in the URL and in the form")
    query = f"{ask.query}\n{text}" if ask.query.strip() and text else ask.query or text
    return replace(ask, query=query, parameters={**ask.parameters, **parameters})


def _fields(body: Body, ask: Ask, content_type: str) -> dict[str, str]:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise refused(
            48, "NOT_IMPLEMENTED", f"A body of the type {content_type[:80]!r} is not spoken here", "Send it alone"
        )
    parts = _Parts()
    try:
        parser = MultipartParser(options.get(b"boundary", b""), parts.callbacks())
        reader = body.reader(ask.encoding, native_blocks=ask.native_blocks)
        while piece := read_some(reader, _PIECE):
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise _bad(f"The form can't be read: {error}") from None
    if not parts.ended:
        raise _bad("The form ends before its last part does")
    return parts.fields


class _Parts:
    """Fields of a form, collected as its parser finds them."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.ended = False
        self._header = (bytearray(), bytearray())
        self._disposition = ""
        self._name = ""
        self._value = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._named,
            "on_part_data": lambda data, start, end: self._value.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition = ""
        self._value = bytearray()

    def _begin_header(self) -> None:
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1].decode("latin-1")

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _utf8(options.get(b"name", b""), "A field's name")
        if b"filename" in options:
            raise refused(
                48,
                "NOT_IMPLEMENTED",
                f"{name[:80]!r} is an external table, which is not spoken here",
                "Send its values as a parameter of the type Array",
            )
        if name != "query" and (not name.startswith(_PARAMETER) or len(name) > _NAME):
            raise _bad(f"A form has no field {name[:80]!r}")
        if name in self.fields:
            raise _bad(f"{name[:80]} is given twice")
        if len(self.fields) >= _FIELDS:
            raise _bad(f"The form has more than {_FIELDS} fields")
        self._name = name

    def _end(self) -> None:
        self.fields[self._name] = _utf8(bytes(self._value), self._name[:80])
        self._value = bytearray()

    def _finish(self) -> None:
        self.ended = True


def _utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"{what} is not UTF-8: {error}") from None


def _bad(what: str) -> QueryError:
    return refused(BAD_ARGUMENTS, "BAD_ARGUMENTS", what, _FIX)
