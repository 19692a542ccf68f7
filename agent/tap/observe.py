"""Watches an answer go by: time of the first content, gaps, facts. Sees copies, never holds up or changes a byte."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agent.tap.bodies import HEAD_BYTES, SURE_ERRORS, BodySample, loads, parse
from agent.tap.facts import Facts
from agent.tap.failures import FAULT_NAME
from agent.tap.gaps import Gaps
from agent.tap.sse import LineSplitter, SseEvent, SseSplitter

if TYPE_CHECKING:
    from agent.tap.head import ResponseHead

_INFLATE_STEP: Final = 1_048_576
_ERROR_STATUS: Final = 400
_TEXT: Final = re.compile(rb'''[{,] ?"(?:text|content)": ?"([^"\\\x00-\x1f]+)"''')
_PLAIN: Final = bytes({*range(0x20, 0x7F)} - {*b'"\\'})
_JSON: Final = b"application/json"
_DONE: Final = b"[DONE]"
_DONES: Final = frozenset({_DONE, b'"[DONE]"', b"<DONE>", b"[done]"})
_WORD_BYTES: Final = 32
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_ID: Final = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*")')
_LINE_KINDS: Final = frozenset(
    b"application/" + kind
    for kind in (b"x-ndjson", b"ndjson", b"jsonl", b"x-jsonl", b"jsonlines", b"x-jsonlines", b"stream+json")
)
_CONTROL: Final = frozenset(
    b"""ping heartbeat keepalive progress metadata status usage end done start open connected comment queue queued
    waiting processing streamstart streamend""".split()
)
"""Events of these names are no piece of an answer, whatever they hold."""
_NO_GAPS: Final = Gaps()
_NOTHING: Final = frozenset(b"ping pong heartbeat keepalive null none undefined nil ok".split())
"""Texts without JSON that say nothing before the first piece of an answer; after it they may be one."""
_ERROR_TEXT: Final = re.compile(rb"(?:error|exception)\s*:", re.IGNORECASE)
_FINISH: Final = re.compile(rb'(?<!\\)"finish_reason"\s*:\s*"([A-Za-z_.]{1,64})"')


class Likeness(NamedTuple):
    """What the events of a stream share: all but one text.

    Most events of a stream differ in nothing but the token. One that equals an event that was parsed, save for a
    text without quotes and backslashes between the same bytes, says the same facts and need not be parsed.
    """

    before: bytes
    after: bytes

    def matches(self, data: bytes) -> bool:
        """Whether an event is that one with another text, not empty."""
        before, after = self
        start, end = len(before), len(data) - len(after)
        return (
            start < end
            and data.startswith(before)
            and data.endswith(after)
            and not data[start:end].translate(None, _PLAIN)
        )

    def within(self, piece: bytes, data: bytes) -> Likeness | None:
        """Likeness of whole pieces to one that holds such an event alone; ``None`` if its data is in several lines."""
        at = piece.find(data)
        return Likeness(piece[:at] + self.before, self.after + piece[at + len(data) :]) if at >= 0 else None


def likeness(data: bytes) -> Likeness | None:
    """Likeness of an event that has exactly one ``text`` or ``content`` of plain characters."""
    found = _TEXT.findall(data)
    match = _TEXT.search(data)
    if match is None or len(found) != 1:
        return None
    return Likeness(data[: match.start(1)], data[match.end(1) :])


class AnswerWatch:
    """Watches one answer.

    Args:
        head: The response's head.

    Attributes:
        facts: What the answer said.
        gaps: Gaps between its content events (streams).
        stream: Whether it is a stream of events.
        bounded: Its framing alone says whether it is whole: it is neither a stream nor ends with its connection.
        size: Payload bytes that went by.
        ended_at: Payload bytes up to the end of the event that ends the stream; ``None`` before.
        has_content: The first content has come.
        taken_back: What had been taken for the first content turned out to be none.
    """

    def __init__(self, head: ResponseHead) -> None:
        kind = head.get(b"content-type") or b""
        if kind != _JSON:
            kind = kind.partition(b";")[0].strip().lower()
        self.facts = Facts()
        self.stream = kind == b"text/event-stream" or kind in _LINE_KINDS
        self.gaps = Gaps() if self.stream else _NO_GAPS
        self.size = 0
        self.ended_at: int | None = None
        self.has_content = self.taken_back = False
        self._last_content = 0.0
        self._like_last: Likeness | None = None
        self._like_piece: Likeness | None = None
        self._splitter: SseSplitter | LineSplitter | None = None
        if self.stream:
            self._splitter = LineSplitter() if kind in _LINE_KINDS else SseSplitter()
        self._sample: BodySample | None = None
        is_json = kind == _JSON or kind.endswith(b"+json")
        self._json = is_json
        if not self.stream and (is_json or head.status >= _ERROR_STATUS):
            self._sample = BodySample()
        elif kind == b"application/octet-stream":
            self._sample = _triton_header(head)
        self._until_close = head.length is None and not head.chunked
        self.bounded = not (self.stream or self._until_close)
        self._inflate: zlib._Decompress | None = None
        if (coding := head.get(b"content-encoding")) and (coding := coding.strip().lower()) != b"identity":
            self._inflate = _inflater(coding)
            if self._inflate is None:
                self._splitter = self._sample = None  # a coding we can't read: times and sizes only

    @property
    def readable(self) -> bool:
        """Whether its events can be read."""
        return self._splitter is not None

    @property
    def cut(self) -> bool:
        """Whether the answer ended where it could not: no end of the stream came, or half a JSON text."""
        if self.stream:
            return self._splitter is not None and self.facts.unfinished
        sample = self._sample
        return self._until_close and self._json and sample is not None and sample.torn

    @property
    def silent(self) -> bool:
        """Whether a stream said nothing at all."""
        facts = self.facts
        said = facts.complete or facts.error or facts.begun or facts.content_chunks
        return self._splitter is not None and not said

    def feed(self, payload: list[bytes], now: float) -> None:
        """Take the payload of one read.

        Args:
            payload: Pieces, in order.
            now: When they came, seconds on the caller's clock.
        """
        for piece in payload:
            if self._splitter is None:
                self.has_content = True
                if (sample := self._sample) is not None:
                    sample.feed(piece if self._inflate is None else self._plain(piece))
            elif (like := self._like_piece) is not None and like.matches(piece) and self._splitter.skip(len(piece)):
                self.facts.content_chunks += 1
                self._content_came(now)
            else:
                self._split(self._splitter, piece, now)
            self.size += len(piece)

    def left_out(self, size: int) -> None:
        """So many bytes of the middle of a whole answer went by that nobody kept."""
        self.size += size
        if self._sample is not None:
            self._sample.left_out(size)

    def _split(self, splitter: SseSplitter | LineSplitter, piece: bytes, now: float) -> None:
        self._like_piece = None
        alone = self._inflate is None and splitter.skip(0)
        events = splitter.feed(self._plain(piece))
        content = False
        for event in events:
            content = self._take(event, now)
            if self.facts.complete and self.ended_at is None:
                self.ended_at = self.size + len(piece) if self._inflate is not None else event.end
        if alone and content and len(events) == 1 and self._like_last is not None and splitter.skip(0):
            data = events[0].data or b""
            if not self.facts.complete and self._like_last.matches(data):
                self._like_piece = self._like_last.within(piece, data)

    def finish(self) -> None:
        """The body has ended: read what could only be read whole."""
        if self._splitter is not None:
            for event in self._splitter.finish():
                self._read_rest(event)
        elif self._sample is not None:
            self._read_sample(self._sample)

    def _take(self, event: SseEvent, now: float) -> bool:
        """Read one event; returns whether it is a piece of the answer."""
        if self.facts.complete:
            return False
        if event.data is None:
            content = True
            self.facts.content_chunks += 1
        elif event.data == _DONE or (len(event.data) <= _WORD_BYTES and event.data.strip() in _DONES):
            self.facts.complete = True
            return False
        else:
            content = self._read_event(event)
        if content:
            self._content_came(now)
        return content

    def _content_came(self, now: float) -> None:
        if self.has_content:
            self.gaps.add(now - self._last_content)
        else:
            self.has_content = True
        self._last_content = now

    def _read_event(self, event: SseEvent) -> bool:
        data = event.data or b""
        if self._like_last is not None and not event.name and self._like_last.matches(data):
            self.facts.content_chunks += 1
            return True
        try:
            message = parse(data)
        except SURE_ERRORS:
            return self._read_text(event, data)
        if _is_error(event.name) and not (isinstance(message, dict) and message.get("error")):
            self.facts.read_error(message)
            return False
        before = self.facts.content_chunks
        strict = self.facts.strict
        content = self.facts.read(message)
        if self.facts.strict and not strict and before:
            self.facts.content_chunks -= before  # whatever came before the dialect's own first message
            before = 0
            self.gaps = Gaps()
            self.has_content, self.taken_back = False, True
        if content and ((event.name and _bare(event.name) in _CONTROL) or _tells_control(message)):
            self.facts.content_chunks = before
            content = False
        single = content and self.facts.content_chunks == before + 1
        self._like_last = likeness(data) if single else None  # of the last one only: later facts win over earlier
        return content

    def _read_text(self, event: SseEvent, data: bytes) -> bool:
        """Somebody's own words, no JSON: they say no fact but that they came."""
        said = data.strip()
        if (match := _ERROR_TEXT.match(said)) is not None and loads(said[match.end() :]) is not None:
            said = said[match.end() :]  # llama.cpp's field, put into data by somebody between
            self.facts.read_error(loads(said))
            return False
        if _is_error(event.name):
            self.facts.read_error(data.decode(errors="replace"))
            return False
        torn = not said or said[:1] in b"{["
        idle = _bare(event.name) in _CONTROL or (not self.has_content and _bare(said) in _NOTHING)
        content = not (torn or idle or self.facts.finish or self.facts.strict)
        self.facts.content_chunks += content
        return content

    def _read_rest(self, event: SseEvent) -> None:
        """What stands after the last event: one whose end never came, if it is whole, else nothing."""
        data = (event.data or b"").strip()
        if self.facts.complete or not data:
            return
        if data in _DONES:
            self.facts.complete = True
        elif event.name == b"error" or loads(data) is not None:
            self.has_content = self._read_event(event) or self.has_content

    def _read_sample(self, sample: BodySample) -> None:
        if sample.is_whole():
            self.facts.read_whole(sample.json())
            return
        found = {"model": _MODEL.search(sample.head) or _MODEL.search(sample.tail), "id": _ID.search(sample.head)}
        usage = _USAGE.search(sample.tail) or _USAGE.search(sample.head)
        message = {key: loads(match[1]) for key, match in found.items() if match is not None}
        message["usage"] = loads(usage[1]) if usage is not None else None
        reasons = _FINISH.findall(sample.tail)
        message["choices"] = [{"index": n, "finish_reason": reason.decode()} for n, reason in enumerate(reasons)]
        self.facts.read(message)

    def _plain(self, piece: bytes) -> bytes:
        if self._inflate is None:
            return piece
        try:
            plain = self._decompress(piece)
        except zlib.error:
            self._splitter = self._sample = None  # not what its head says: times and sizes only
            return b""
        if self._inflate.unconsumed_tail:  # more than a stream of text expands to: stop reading, keep times and sizes
            self._splitter = self._sample = None
        return plain

    def _decompress(self, piece: bytes) -> bytes:
        if self.size == 0 and piece and not _holds_zlib(piece):
            self._inflate = zlib.decompressobj(-15)
        engine = self._inflate
        plain = b""
        while engine is not None:
            plain += engine.decompress(piece, max(1, _INFLATE_STEP - len(plain)))
            piece = engine.unused_data.lstrip(b"\0")
            if not engine.eof or not piece or len(plain) >= _INFLATE_STEP:
                return plain
            engine = self._inflate = zlib.decompressobj(47)  # several members are one stream (RFC 1952 §2.2)
        return plain


def _holds_zlib(piece: bytes) -> bool:
    """Whether bytes begin as zlib's or gzip's do; some servers send the bare stream as ``deflate``."""
    if piece[0] & 0x0F != zlib.DEFLATED:
        return piece[:1] == b"\x1f"
    return len(piece) == 1 or int.from_bytes(piece[:2]) % 31 == 0


def _bare(word: bytes) -> bytes:
    """A short word without what people put around and into it: ``[PING]``, ``keep-alive``, ``:keepalive``."""
    return re.sub(rb"[^a-z]", b"", word.lower()) if len(word) <= _WORD_BYTES else word


def _is_error(name: bytes) -> bool:
    """Whether an event of this name tells of a failure."""
    return bool(name) and FAULT_NAME.fullmatch(name.decode("ascii", "replace")) is not None


def _tells_control(message: Any) -> bool:
    """Whether a message says of itself that it is no piece of an answer."""
    if not isinstance(message, dict) or "choices" in message:
        return False
    kinds = (message.get("type"), message.get("event"), message.get("event_type"))
    return any(isinstance(kind, str) and _bare(kind.encode()) in _CONTROL for kind in kinds)


def _triton_header(head: ResponseHead) -> BodySample | None:
    """Sample of the JSON before binary tensors (KServe's binary tensor data extension)."""
    length = head.get(b"inference-header-content-length")
    if length is None or not length.isdigit() or not 0 < int(length) <= HEAD_BYTES:
        return None
    return _HeaderSample(int(length))


class _HeaderSample(BodySample):
    __slots__ = ()

    def is_whole(self) -> bool:
        return len(self.head) == self._limit


def _inflater(coding: bytes) -> zlib._Decompress | None:
    return zlib.decompressobj(47) if coding in {b"gzip", b"x-gzip", b"deflate"} else None  # 32 + 15: either header
