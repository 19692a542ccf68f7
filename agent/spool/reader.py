"""The reading end of the spool: one lane for each producer's signal, whose batches survive a crash unchanged.

A lane's state is one small file beside its segments, ``state.json``: for each segment the offset up to which it is
acknowledged and, where a batch is on its way, that batch's end and id. It is replaced atomically before a batch is
handed out and again after its acknowledgement. It is not synced: after a power loss some records may be sent a second
time under another id, none is lost that the disk still has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

import structlog

from agent.spool.framing import LAYOUT, Records, is_checked, split_records
from agent.spool.writer import SIGNALS, SUFFIX, SpoolSignal
from base import locks
from base.errors import DataFolderInUseError

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE: Final = "state.json"
REJECTED_FOLDER: Final = "rejected"
MAX_BATCH_BYTES: Final = 1_000_000
_DONE: Final = -1
_LOOK_SECONDS: Final = 5.0
"""However quiet a lane is, it is looked into so often: no time tells that a writer has let go of its segment."""
_TICK_NS: Final = 1_000_000_000
"""Changes nearer to each other than this may bear the same time."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring records of one segment, merged into one OTLP request.

    Attributes:
        batch_id: Stays the same through every retry, crashes included (32 hex digits).
        body: The merged request, not compressed.
        ends: Offset after each record, by which a refused batch is halved.
    """

    signal: SpoolSignal
    segment: str
    start: int
    batch_id: str
    body: bytes
    ends: tuple[int, ...]

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return self.ends[-1]

    @property
    def records(self) -> int:
        """How many records it merges."""
        return len(self.ends)


@dataclass(slots=True)
class _Progress:
    """``offset``: acknowledged up to here (``-1``: used up, the file may go); ``end`` and ``batch``: on its way."""

    offset: int = 0
    end: int = 0
    batch: str = ""


class Lane:
    """Batches of one producer's signal. One process reads a lane at a time.

    Args:
        folder: ``DIR/spool/<producer>/<signal>``.
        spool_id: What tells this spool's batch ids from those of every other agent.
        max_batch_bytes: A batch ends before the record that would lead above it, but holds at least one record.
        max_bytes: Above it the oldest sealed segments are given up, counted.
        max_age_seconds: Sealed segments that began longer ago are given up, counted.

    Attributes:
        delivered: Records acknowledged.
        dropped: Records given up, by reason: ``full``, ``old``, ``rejected`` (the collector never takes them),
            ``damaged`` (a torn tail, or what is unreadable between two whole records: one each).
    """

    def __init__(
        self,
        folder: Path,
        spool_id: str,
        *,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        max_bytes: int = 450_000_000,
        max_age_seconds: float = 48 * 3600.0,
    ) -> None:
        self.folder = folder
        self.producer = folder.parent.name
        self.signal = cast("SpoolSignal", folder.name)
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self._spool_id = spool_id
        self._max_batch_bytes = max_batch_bytes
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._progress = self._load()
        self._turn_newest, self._caught_up = False, True
        self._newest, self._quiet, self._look_at = "", (0, 0), 0.0

    def next_batch(self) -> Batch | None:
        """The batch to send now: one that was on its way, else by turns of the newest and the oldest segment.

        The turns keep the picture live while an outage's backlog drains. Returns None when nothing waits.
        """
        if time.monotonic() < self._look_at and self._stamp() == self._quiet:
            return None
        names = self._segments()
        self._newest = f"{self.folder}/{names[-1]}" if names else ""
        before, self._look_at = self._stamp(), 0.0
        planned = [name for name in names if self._at(name).batch]
        self._turn_newest = not self._turn_newest
        order = planned + (names[::-1] if self._turn_newest else names)
        for name in order:
            batch = self._batch(name)
            if batch is not None:
                self._caught_up = len(names) == 1 and len(batch.body) < self._max_batch_bytes // 2
                return batch
        # what comes while this is looked at must bear another time; of two segments the older may grow too
        if len(names) < 2 and time.time_ns() - before[0] > _TICK_NS:  # noqa: PLR2004
            self._quiet, self._look_at = before, time.monotonic() + _LOOK_SECONDS
        return None

    def _stamp(self) -> tuple[int, int]:
        """When a segment last came or went (Unix ns), and bytes of the newest; zeros where it is not there."""
        try:
            return os.stat(self.folder).st_mtime_ns, os.stat(self._newest).st_size if self._newest else 0  # noqa: PTH116
        except FileNotFoundError:
            return 0, 0

    def is_caught_up(self) -> bool:
        """Whether the last batch was all that waited, so that the next may gather for a moment."""
        return self._caught_up

    def acknowledge(self, batch: Batch) -> None:
        """The collector has it: move on."""
        self._progress[batch.segment] = _Progress(offset=batch.end)
        self.delivered += batch.records
        self._save()

    def refuse(self, batch: Batch) -> bool:
        """The collector will never take it as it is: halve it, or set its single record aside.

        Returns:
            Whether a record was set aside (in ``rejected/``, at most 64 of them) and counted.
        """
        if batch.records > 1:
            end = batch.ends[batch.records // 2 - 1]
            self._progress[batch.segment] = self._plan(batch.segment, batch.start, end)
            self._save()
            return False
        self.dropped["rejected"] += 1
        self._keep_rejected(batch)
        self._progress[batch.segment] = _Progress(offset=batch.end)
        self._save()
        return True

    def pending_bytes(self) -> int:
        """Bytes not acknowledged yet."""
        total = 0
        for name in self._segments():
            with contextlib.suppress(FileNotFoundError):
                total += max(0, (self.folder / name).stat().st_size - max(0, self._at(name).offset))
        return total

    def trim(self) -> None:
        """Give up the oldest sealed segments above the bound on bytes or age, and count their unsent records."""
        names = self._segments()
        sizes = {name: _size(self.folder / name) for name in names}
        total = sum(sizes.values())
        oldest_ns = time.time_ns() - int(self._max_age_seconds * 1e9)
        for name in names:
            reason: Literal["full", "old"] = "full" if total > self._max_bytes else "old"
            if reason == "old" and _born_ns(name) >= oldest_ns:
                return
            if not _is_sealed(self.folder / name):
                return
            unsent = self._unsent(name)
            self.dropped[reason] += unsent
            log.warning("spool_gave_up_segment", lane=str(self.folder), reason=reason, records=unsent)
            total -= sizes[name]
            self._finish(name)

    def _at(self, name: str) -> _Progress:
        return self._progress.get(name) or _Progress()

    def _segments(self) -> list[str]:
        try:
            names = sorted(entry for entry in os.listdir(self.folder) if entry.endswith(SUFFIX))  # noqa: PTH208 - names
        except FileNotFoundError:
            return []
        for name in names:
            if self._at(name).offset == _DONE:  # killed between the note and the removal
                (self.folder / name).unlink(missing_ok=True)
        for gone in self._progress.keys() - set(names):
            del self._progress[gone]
        return [name for name in names if self._at(name).offset != _DONE]

    def _batch(self, name: str) -> Batch | None:
        at = self._at(name)
        sealed = _is_sealed(self.folder / name)  # asked before the read: what is sealed then is read to its end
        read = self._read(name, at.offset, end=at.end if at.batch else None, limit=self._max_batch_bytes)
        if not read.ends and sealed and is_checked(name):
            read = self._salvage(name)
            at = self._at(name)
        if not read.ends:
            if sealed:
                self._skip_tail(name, at.offset)
            return None
        if not at.batch or read.ends[-1] != at.end:  # the second: a power loss took a part of what was planned
            at = self._progress[name] = self._plan(name, at.offset, read.ends[-1])
            self._save()
        return Batch(self.signal, name, at.offset, at.batch, read.body, read.ends)

    def _plan(self, name: str, start: int, end: int) -> _Progress:
        seed = f"{self._spool_id}/{self.producer}/{self.signal}/{name}/{start}/{end}"
        return _Progress(start, end, hashlib.sha256(seed.encode()).hexdigest()[:32])

    def _salvage(self, name: str) -> Records:
        """The next whole record of a sealed segment, whatever lies before it, which is counted and passed over."""
        offset = self._at(name).offset
        for piece in LAYOUT.pieces(self._rest(name, offset)):
            end = offset + piece.end
            if piece.frame is not None:
                if piece.mended:
                    log.warning("spool_mended_length", segment=str(self.folder / name), offset=offset + piece.start)
                return Records(piece.frame.body, (end,), 0)
            if not piece.ended:
                break
            self.dropped["damaged"] += 1
            log.warning("spool_skipped_damage", segment=str(self.folder / name), offset=offset + piece.start, end=end)
            self._progress[name] = _Progress(offset=end)
            self._save()
        return Records(b"", (), 0)

    def _unsent(self, name: str) -> int:
        offset = max(0, self._at(name).offset)
        if is_checked(name):
            return sum(piece.frame is not None for piece in LAYOUT.pieces(self._rest(name, offset)))
        return len(self._read(name, offset, limit=None).ends)

    def _rest(self, name: str, offset: int) -> bytes:
        with contextlib.suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            file.seek(offset)
            return file.read()
        return b""

    def _skip_tail(self, name: str, offset: int) -> None:
        if _size(self.folder / name) > offset:
            self.dropped["damaged"] += 1
            log.warning("spool_skipped_torn_tail", segment=str(self.folder / name), offset=offset)
        if _is_sealed(self.folder / name):
            self._finish(name)

    def _finish(self, name: str) -> None:
        self._progress[name] = _Progress(offset=_DONE)
        self._save()
        (self.folder / name).unlink(missing_ok=True)

    def _read(self, name: str, offset: int, *, limit: int | None, end: int | None = None) -> Records:
        checked = is_checked(name)
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                wanted = end - offset if end is not None else (limit + 16 if limit is not None else -1)
                data = file.read(wanted)
                read = split_records(data, offset, None if end is not None else limit, checked=checked)
                if not read.ends and read.needs > len(data) and len(data) == wanted:
                    file.seek(offset)  # one record larger than a batch
                    read = split_records(file.read(read.needs), offset, None, checked=checked)
                return read
        except FileNotFoundError:
            return Records(b"", (), 0)

    def _keep_rejected(self, batch: Batch) -> None:
        folder = self.folder / REJECTED_FOLDER
        try:
            folder.mkdir(exist_ok=True)
            if sum(1 for _ in folder.iterdir()) < 64:  # noqa: PLR2004 - enough to see what was wrong
                (folder / f"{batch.batch_id}.pb").write_bytes(batch.body)
        except OSError as error:
            log.warning("spool_rejected_not_kept", lane=str(self.folder), error=str(error))

    def _load(self) -> dict[str, _Progress]:
        try:
            raw = json.loads((self.folder / STATE_FILE).read_bytes())
            return {str(name): _Progress(int(at[0]), int(at[1]), str(at[2])) for name, at in raw.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            log.warning("spool_state_unreadable", lane=str(self.folder), error=str(error), effect="sent again")
            return {}

    def _save(self) -> None:
        text = json.dumps({name: [at.offset, at.end, at.batch] for name, at in self._progress.items()}).encode()
        temporary = f"{self.folder}/.{STATE_FILE}"
        try:
            _write(temporary, text)
            os.replace(temporary, f"{self.folder}/{STATE_FILE}")  # noqa: PTH105
        except OSError as error:  # a full disk: sending on is what frees it
            log.warning(
                "spool_state_not_saved", lane=str(self.folder), error=str(error), effect="repeats after a crash"
            )


class SpoolReader:
    """Finds every producer's lanes below ``DIR/spool``; new producers appear as their folders do.

    Raises:
        DataFolderInUseError: Another process reads this spool.
    """

    def __init__(self, spool: Path, *, max_batch_bytes: int = MAX_BATCH_BYTES, max_bytes: int = 450_000_000) -> None:
        self.spool = spool
        self._max_batch_bytes = max_batch_bytes
        self._max_bytes = max_bytes
        self._lanes: dict[str, Lane] = {}
        self._id = _spool_id(spool)
        try:
            self._lock = locks.take(spool / ".reader")
        except locks.HeldError:
            raise DataFolderInUseError(
                f"another agent ships from {spool}", "Stop it, or give this one a data folder of its own with --data."
            ) from None

    def close(self) -> None:
        """Let another process read."""
        self._lock.close()

    def lanes(self) -> list[Lane]:
        """All lanes, those of producers that have come since the last call included."""
        with os.scandir(self.spool) as entries:
            producers = sorted(entry.name for entry in entries if entry.is_dir())
        for producer in producers:
            for signal in SIGNALS:
                name = f"{producer}/{signal}"
                if name not in self._lanes and (folder := self.spool / name).is_dir():
                    self._lanes[name] = Lane(
                        folder, self._id, max_batch_bytes=self._max_batch_bytes, max_bytes=self._max_bytes
                    )
        return list(self._lanes.values())


def _write(path: str, data: bytes) -> None:
    """Write a small file, twice a batch: without a Python file object."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(f"{path} was not written whole")
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _born_ns(name: str) -> int:
    head = name.split("-", 1)[0]
    return int(head) if head.isdecimal() else 0


def _is_sealed(path: Path) -> bool:
    """Whether the segment's writer has let go of it."""
    try:
        return locks.is_free(path)
    except FileNotFoundError:
        return True


def _spool_id(spool: Path) -> str:
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = spool / "id"
    if not path.exists():
        temporary = spool / f".id.{os.getpid()}"
        temporary.write_text(secrets.token_hex(8))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return path.read_text().strip()
