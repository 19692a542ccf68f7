"""Requests that the store can't read: made readable where that is possible, else kept apart and counted.

upb accepts some bodies that the engine refuses (a known field of the wrong wire type is an unknown field to upb), and
one refused message fails its whole insert. A refused segment is first written anew without unknown fields; if that
does not help it is halved until the bad request is alone. Every new segment's id derives from its parent's, so that
a crash at any step repeats the same tokens. See docs/decisions/0009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from google.protobuf.message import DecodeError

from base.framed import varint
from collector import framing
from collector.aside import sync_folder, write_synced
from collector.decode import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from collector.log.segment import Segment

LOG: Final = structlog.get_logger()

_CLEANED: Final = "-s"


class Quarantine:
    """A bounded folder of requests that nobody could read.

    Args:
        folder: Where they lie, one file each, the message as it was in the log.
        max_bytes: Bound of the folder; beyond it a request is only counted.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.pb")) if folder.is_dir() else 0

    def put(self, name: str, message: bytes, reason: str) -> bool:
        """Keep a message under a name; False when the folder is at its bound.

        It is on the disk when this returns: the segment it comes from may go. ``reason`` is logged; it must not quote
        the message.

        Raises:
            OSError: The disk refuses; the message is still in its segment alone.
        """
        path = self._folder / f"{name}.pb"
        before = path.stat().st_size if path.exists() else 0  # of a try that ended between here and the segment's end
        kept = self._bytes - before + len(message) <= self._max_bytes
        if kept:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_suffix(".tmp")
            try:
                write_synced(temporary, [message])
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self._folder)
            self._bytes += len(message) - before
        LOG.warning("request_quarantined", name=name, bytes=len(message), reason=reason, kept=kept)
        return kept


def divide(segment: Segment) -> tuple[list[tuple[str, list[bytes]]], list[framing.Frame]]:
    """What takes the place of a segment that the store refused to read.

    Returns:
        Ids and frames of the segments that replace it, and the requests to be set aside.

    Raises:
        OSError: The segment can't be read.
    """
    with segment.path.open("rb") as file:
        frames = list(framing.read(file))
    if _CLEANED not in segment.id:
        return _clean(segment, frames)
    if len(frames) > 1:
        middle = len(frames) // 2
        halves = (frames[:middle], frames[middle:])
        return [(f"{segment.id}-{i}", [_whole(f) for f in half]) for i, half in enumerate(halves)], []
    return [], frames


def _clean(segment: Segment, frames: list[framing.Frame]) -> tuple[list[tuple[str, list[bytes]]], list[framing.Frame]]:
    clean: list[bytes] = []
    unreadable: list[framing.Frame] = []
    for frame in frames:
        request = KINDS[segment.signal]()
        try:
            request.ParseFromString(frame.message)
            request.DiscardUnknownFields()
            clean.append(framing.reframe(request.SerializeToString(), frame.message))
        except (DecodeError, ValueError):
            unreadable.append(frame)
    return ([(segment.id + _CLEANED, clean)] if clean else []), unreadable


def _whole(frame: framing.Frame) -> bytes:
    return varint(len(frame.message)) + frame.message
