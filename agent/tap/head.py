"""Heads of HTTP/1.x messages: parsed strictly, written back almost byte for byte.

A proxy is only safe when it and the server behind it agree where a message ends, so everything about which two
parsers could disagree is refused (RFC 9112 §2.2, §5.2, §6.3; RFC 9110 §5.6.2): bare line feeds, folded lines, space
before a colon, several lengths, a length beside a transfer coding, a transfer coding that isn't plain ``chunked``.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

MAX_HEAD_BYTES: Final = 65_536
MAX_FIELDS: Final = 256
MAX_BODY_BYTES: Final = 1 << 60

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_FIELD: Final = re.compile(rb"\r\n(" + _TOKEN + rb"):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)(?=\r\n)")
_JOIN: Final = b": ".join
_LOWER: Final = bytes.lower
_NAME: Final[Callable[[Field], bytes]] = itemgetter(0)
_VALUE: Final[Callable[[Field], bytes]] = itemgetter(1)
_MAX_DIGITS: Final = 19
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|$)")
_SLASH: Final = 0x2F
_SWITCHING: Final = 101
_FINAL: Final = 200
_REAL_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"chunked"})
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SPECIAL: Final = (_HOP - {b"connection"}) | {b"traceparent", b"tracestate", b"x-request-id"}
_KEPT: Final = frozenset({b"keep-alive", b"Keep-Alive"})
"""What most clients that name an option of their connection say."""
_END_TO_END: Final = frozenset(
    {b"host", b"content-length", b"content-type", b"authorization", b"cookie", b"expect", b"x-request-id"}
)
"""Fields that a ``Connection`` field may not name away: naming them is an attack, not a wish."""

Field = tuple[bytes, bytes]
"""Name as it came, value without the space around it."""
_NOTHING: Final[frozenset[bytes]] = frozenset()
_ONCE: Final[dict[bytes, list[bytes]]] = {}
"""What a head says more than once, where it says nothing so."""


class HttpFault(Exception):  # noqa: N818 - a fault of the peer, answered, not an error of ours
    """A message that is refused.

    Args:
        status: Status to answer with.
        reason: Low-cardinality word, recorded as ``error.type``.
        message: What is wrong, for the peer; holds nothing that the peer sent.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(message)


class Head:
    """What requests and responses share.

    Attributes:
        minor: Of HTTP/1.x.
        fields: In their order.
        get: First value of a field (lower-case name), ``None`` where there is none.
        repeated: All values of those that there is more than one of.
        plain: No field is there that is read or changed on its way, but for ``Connection``.
    """

    __slots__ = ("_values", "fields", "get", "minor", "plain", "repeated")

    minor: int

    def keep(self, fields: list[Field]) -> None:
        """Put others in place of the fields."""
        values = dict(zip(map(_LOWER, map(_NAME, fields)), map(_VALUE, fields), strict=True))
        repeated = _ONCE
        if len(values) < len(fields):
            each: dict[bytes, list[bytes]] = {}
            for name, value in fields:
                each.setdefault(name.lower(), []).append(value)
            values = {lower: all_[0] for lower, all_ in each.items()}
            repeated = {lower: all_ for lower, all_ in each.items() if len(all_) > 1}
        self.fields = fields
        self.repeated = repeated
        self.plain = _SPECIAL.isdisjoint(values)
        self._values = values
        self.get: Callable[[bytes], bytes | None] = values.get  # asked so often that a step between is felt

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        if name in self.repeated:
            return self.repeated[name]
        return [self._values[name]] if name in self._values else []

    def tokens(self, name: bytes) -> AbstractSet[bytes]:
        """Members of a comma-separated field, in lower case."""
        if name not in self._values:
            return _NOTHING
        return {t.strip().lower() for value in self.all(name) for t in value.split(b",") if t.strip()}

    def has(self, *names: bytes) -> bool:
        """Whether there is a field of one of these names."""
        return not self._values.keys().isdisjoint(names)

    def keeps_alive(self) -> bool:
        """Whether the peer means to use the connection again (RFC 9112 §9.3)."""
        if (said := self.get(b"connection")) is None:
            return self.minor == 1
        if said in _KEPT and b"connection" not in self.repeated:
            return True
        options = self.tokens(b"connection")
        if b"close" in options:
            return False
        return self.minor == 1 or b"keep-alive" in options

    def forwarded(self, but: tuple[bytes, ...] = ()) -> list[Field]:
        """The end-to-end fields: without hop-by-hop ones and those that ``Connection`` names, nor ``but``.

        Args:
            but: Names of which none is in a head that is ``plain``.
        """
        said = self.get(b"connection")
        if said is None and self.plain:
            return self.fields.copy()
        if said in _KEPT and self.plain and b"connection" not in self.repeated:
            drop = _HOP
        else:
            drop = _HOP.union(self.tokens(b"connection") - _END_TO_END, but)
        names = [f[0].lower() for f in self.fields] if self.repeated else self._values
        return [f for name, f in zip(names, self.fields, strict=True) if name not in drop]


class RequestHead(Head):
    """Head of a request; ``length`` is ``None`` for a chunked body."""

    __slots__ = ("length", "method", "target")

    def __init__(self, minor: int, fields: list[Field], method: bytes, target: bytes, length: int | None) -> None:
        self.minor = minor
        self.keep(fields)
        self.method = method
        self.target = target
        self.length = length

    @property
    def path(self) -> str:
        """Path without query, for finding the route (undecodable bytes replaced)."""
        target = self.target.partition(b"?")[0]
        if not target.startswith(b"/") and b"://" in target:
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        return target.decode("ascii", "replace")

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does (RFC 9110 §9.2.2), with no body to send again."""
        return self.method in _IDEMPOTENT and self.length == 0

    def find_length(self) -> None:
        """Find out where the body ends.

        Raises:
            HttpFault: 400, the fields are open to more than one reading; 501, a coding that we don't do.
        """
        length = self.get(b"content-length")
        if self.get(b"transfer-encoding") is None:
            if b"content-length" in self.repeated:
                raise HttpFault(400, "several_lengths", "more than one Content-Length")
            self.length = _length(length) if length is not None else 0
            return
        codings = self.all(b"transfer-encoding")
        if length is not None:
            raise HttpFault(400, "length_and_coding", "Content-Length beside Transfer-Encoding")
        if self.minor == 0:
            raise HttpFault(400, "coding_in_http10", "Transfer-Encoding in an HTTP/1.0 request")
        self.length = None
        if len(codings) == 1 and codings[0].lower() == b"chunked":
            return
        names = [c.strip().lower() for value in codings for c in value.split(b",")]
        known = names.count(b"chunked") == 1 and set(names) <= _REAL_CODINGS
        if len(codings) == 1 and names[-1] == b"chunked" and known:
            raise HttpFault(501, "transfer_coding", "only the transfer coding chunked is supported")
        raise HttpFault(400, "transfer_coding", "the Transfer-Encoding field is malformed")

    def wants_websocket(self) -> bool:
        """Whether this asks to become a WebSocket; other upgrades (h2c above all) are not passed on."""
        if b"upgrade" not in self._values:
            return False
        return b"upgrade" in self.tokens(b"connection") and self.tokens(b"upgrade") == {b"websocket"}


class ResponseHead(Head):
    """Head of a response. ``chunked`` and ``length`` as the fields say; whether a body follows is the caller's."""

    __slots__ = ("chunked", "length", "reason", "status")

    def __init__(
        self, minor: int, fields: list[Field], status: int, reason: bytes, *, chunked: bool, length: int | None
    ) -> None:
        self.minor = minor
        self.keep(fields)
        self.status = status
        self.reason = reason
        self.chunked = chunked
        self.length = length

    def find_length(self) -> None:
        """Find out what the fields say of where the body ends.

        Raises:
            HttpFault: 400, they are open to more than one reading.
        """
        length = self.get(b"content-length")
        if self.get(b"transfer-encoding") is not None:
            codings = [c.strip().lower() for value in self.all(b"transfer-encoding") for c in value.split(b",")]
            if b"chunked" in codings[:-1] or codings[-1] != b"chunked":
                raise HttpFault(400, "transfer_coding", "the Transfer-Encoding field is malformed")
            self.chunked = True  # it wins over a length, which is not passed on (RFC 9112 §6.3)
            if length is not None:
                self.keep([f for f in self.fields if f[0].lower() != b"content-length"])
        elif length is not None:
            if b"content-length" in self.repeated:
                self._keep_one_length()
            self.length = _length(length)

    def _keep_one_length(self) -> None:
        """Leave the first of several lengths, which all must say the same."""
        first, *others = [f for f in self.fields if f[0].lower() == b"content-length"]
        if any(other[1] != first[1] for other in others):
            raise HttpFault(400, "several_lengths", "more than one Content-Length")
        self.keep([f for f in self.fields if f[0].lower() != b"content-length" or f is first])


def find_end(buffer: bytes | bytearray, seen: int = 0) -> int:
    """Index after the head's empty line, or -1 while it has not come.

    Args:
        buffer: What came so far.
        seen: How much of it an earlier call has looked at.

    Raises:
        HttpFault: The head is over the bound, or a line ends in a bare CR or LF.
    """
    end = buffer.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)  # noqa: PLR2004 - an end may have begun before
    if 0 <= end <= MAX_HEAD_BYTES:
        return end + 4
    if len(buffer) > MAX_HEAD_BYTES:
        raise HttpFault(431, "head_too_large", f"the head of the message is over {MAX_HEAD_BYTES} bytes")
    if _BARE_LINE_END.search(buffer, max(0, seen - 2)):
        raise HttpFault(400, "bare_line_end", "a line of the head does not end in CR LF")
    return -1


def parse_request(head: bytes) -> RequestHead:
    """Parse a request head that ends in an empty line.

    Raises:
        HttpFault: 400 (malformed, or open to more than one reading), 501 (a coding or method we don't do), 505.
    """
    match = _REQUEST_LINE.match(head)
    if match is None:
        line = head.partition(b"\r\n")[0]
        if re.fullmatch(rb"\S+ \S+ HTTP/[0-9.]+", line) and b" HTTP/1." not in line:
            raise HttpFault(505, "http_version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise HttpFault(400, "request_line", "the request line is malformed")
    method, target, digit = match.groups()
    minor = int(digit)
    request = RequestHead(minor, _fields(head), method, target, 0)
    if method == b"CONNECT":
        raise HttpFault(501, "connect", "CONNECT is not supported")
    if not (target[0] == _SLASH or target == b"*" or re.match(rb"https?://", target, re.IGNORECASE)):
        raise HttpFault(400, "request_target", "the request target is neither a path nor a URL")
    if b"host" in request.repeated or (minor == 1 and request.get(b"host") is None):
        raise HttpFault(400, "host", "HTTP/1.1 asks for exactly one Host field")
    request.find_length()
    return request


def _length(digits: bytes) -> int:
    if digits.isdigit() and len(digits) <= _MAX_DIGITS and (length := int(digits)) <= MAX_BODY_BYTES:
        return length
    raise HttpFault(400, "content_length", "the Content-Length field is not a number")


def parse_response(head: bytes) -> ResponseHead:
    """Parse a response head that ends in an empty line.

    Raises:
        HttpFault: 502, the server's head is malformed or its length ambiguous.
    """
    match = _STATUS_LINE.match(head)
    if match is None:
        raise HttpFault(502, "upstream_malformed", "the server's status line is malformed")
    try:
        fields = _fields(head)
        response = ResponseHead(int(match[1]), fields, int(match[2]), match[3] or b"", chunked=False, length=None)
        response.find_length()
    except HttpFault as fault:
        raise HttpFault(502, "upstream_malformed", f"the server's answer is malformed: {fault}") from fault
    return response


def read_heads(buffer: bytes) -> tuple[bytes, ResponseHead | None, bytes]:
    """Take what is whole of an answer's heads.

    Returns:
        Interim (1xx) ones as they came, the final one or the switch of protocols if it is here, what follows.

    Raises:
        HttpFault: 502, as ``parse_response``.
    """
    at = 0
    while (end := find_end(buffer[at:] if at else buffer)) >= 0:
        head = parse_response(buffer[at : at + end])
        if head.status >= _FINAL or head.status == _SWITCHING:
            return buffer[:at], head, buffer[at + end :]
        at += end
    return buffer[:at], None, buffer[at:]


def _fields(head: bytes) -> list[Field]:
    """Fields of a head, which begins with another line and ends in an empty one."""
    count = head.count(b"\r\n") - 2
    if count > MAX_FIELDS:
        raise HttpFault(431, "head_too_large", f"more than {MAX_FIELDS} header fields")
    fields: list[Field] = _FIELD.findall(head)
    if len(fields) < count:
        raise _malformed(head.split(b"\r\n")[1:-2])
    if b" \r\n" in head or b"\t\r\n" in head:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def _malformed(lines: list[bytes]) -> HttpFault:
    """What is wrong with the first line that is no field."""
    wrong = next(line for line in lines if _FIELD.match(b"\r\n" + line + b"\r\n") is None)
    if wrong[:1] in (b" ", b"\t"):
        return HttpFault(400, "folded_line", "a header field is folded over two lines")
    return HttpFault(400, "header_field", "a header field is malformed")


def render(first_line: bytes, fields: list[Field]) -> bytes:
    """A head, ready to be written."""
    return b"\r\n".join([first_line, *map(_JOIN, fields), b"\r\n"])
