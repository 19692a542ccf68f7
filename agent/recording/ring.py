"""The last minutes as they were, on disk: what was spooled and every metrics page, until it is old.

What producers spool is not copied: a segment gets a second name (a hard link) in the ring, under which it stays when
the collector has it. So the ring costs one look at the spool's folders a turn, and the pages, which are kept as they
came. It lives on the spool's disk and outlives a kill of its agent.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import zlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.spool.writer import SIGNALS, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RING: Final = "black-box"
"""Folder of the ring below the data folder."""
PAGES: Final = "pages"
_PAGES_SUFFIX: Final = ".pages.gz"
_FILE_SECONDS: Final = 30.0
"""What one file of pages spans; what is old goes file by file."""
_FLUSH_SECONDS: Final = 5.0
_LEVEL: Final = 1
_SEGMENT_SECONDS: Final = 60.0
"""A segment may have been begun so long before its last record."""
_SCARCE: Final = 0.02
"""Share of the disk that is left free for the spool."""

log = structlog.get_logger()


class Ring:
    """Writes a ring.

    Args:
        folder: Where it lies; on the spool's file system.
        spool: Whose segments it keeps.
        seconds: How far it reaches back.
        max_bytes: What it may take; the oldest goes first.

    Attributes:
        bytes: What it takes, as of the last turn.
        since: When its pages begin, Unix seconds, as of the last turn; None where it has none.
        lost: What could not be kept, by reason: ``disk`` (it took nothing), ``scarce`` (it had too little left). What
            goes by age and by ``max_bytes`` is not lost: it is as it was asked for.
    """

    def __init__(self, folder: Path, spool: Path, seconds: float, max_bytes: int) -> None:
        self.folder = folder
        self.bytes = 0
        self.since: float | None = None
        self.lost: dict[str, int] = {}
        self._spool, self._seconds, self._max_bytes = spool, seconds, max_bytes
        self._pages: gzip.GzipFile | None = None
        self._until = self._flushed = 0.0

    def page(self, instance: str, at: float, took: float, body: bytes | None, error: str = "") -> None:
        """Keep a page, or that it did not come; never raises."""
        about = {"t": round(at, 4), "instance": instance, "took_s": round(took, 4)}
        about |= {"status": 0, "error": error} if body is None else {"status": 200, "bytes": len(body)}
        try:
            file = self._file(at)
            file.write(json.dumps(about, separators=(",", ":")).encode() + b"\n")
            if body is not None:
                file.write(body)
            if at - self._flushed >= _FLUSH_SECONDS:
                self._flushed = at
                self.flush()
        except OSError as error_:
            self._lose("disk", str(error_))
            self._drop_file()

    def turn(self, now: float) -> None:
        """Take what the spool has that is new, and let go of what is old; never raises. ``now``: Unix seconds."""
        try:
            take(self._spool, self.folder)
            self._let_go(now)
        except OSError as error:
            self._lose("disk", str(error))

    def flush(self) -> None:
        """Let readers see all pages; never raises."""
        if self._pages is None:
            return
        try:
            self._pages.flush(zlib.Z_SYNC_FLUSH)
        except OSError as error:
            self._lose("disk", str(error))
            self._drop_file()

    def close(self) -> None:
        """End the file of pages."""
        self._drop_file()

    def _let_go(self, now: float) -> None:
        files = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                told = path.stat()
                files.append((told.st_mtime, told.st_size, path))
        files.sort()
        left = sum(size for _, size, _ in files)
        disk = shutil.disk_usage(self.folder if self.folder.exists() else self._spool)
        scarce = disk.free < disk.total * _SCARCE
        for changed, size, path in files:
            asked = changed < now - self._seconds or left > self._max_bytes
            if not asked and not scarce:
                break
            if not asked:
                self._lose("scarce", f"less than {_SCARCE:.0%} of the disk is free")
            path.unlink(missing_ok=True)
            left -= size
        self.bytes, self.since = left, since(self.folder)

    def _file(self, at: float) -> gzip.GzipFile:
        if self._pages is None or at >= self._until:
            self._drop_file()
            path = self.folder / PAGES / f"{int(at * 1000):014d}{_PAGES_SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._pages = gzip.open(path, "ab", compresslevel=_LEVEL)  # noqa: SIM115 - open until its time is over
            self._until, self._flushed = at + _FILE_SECONDS, at
        return self._pages

    def _drop_file(self) -> None:
        file, self._pages = self._pages, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _lose(self, reason: str, error: str) -> None:
        if reason not in self.lost:
            log.warning("black_box_incomplete", reason=reason, error=error)
        self.lost[reason] = self.lost.get(reason, 0) + 1


def take(spool: Path, folder: Path) -> None:
    """Give the segments of a spool that are not in a ring their second names.

    Raises:
        OSError: The disk is full, or another than the spool's.
    """
    for signal in SIGNALS:
        for producer in _names(spool):
            for name in _names(spool / producer / signal):
                kept = folder / signal / f"{name.removesuffix(SUFFIX)}.{producer}{SUFFIX}"
                if name.startswith(".") or not name.endswith(SUFFIX) or kept.exists():
                    continue
                kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with contextlib.suppress(FileExistsError, FileNotFoundError):  # sent and gone between two looks
                    os.link(spool / producer / signal / name, kept)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def pages_in(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pages of a ring in order of time: (instance, line as ``pages.jsonl.gz`` has it); what was cut off is left out."""
    for path in sorted((folder / PAGES).glob(f"*{_PAGES_SUFFIX}")):
        try:
            with gzip.open(path, "rb") as file:
                while line := file.readline():
                    row = json.loads(line)
                    size = row.pop("bytes", None)
                    if size is not None:
                        text = file.read(size)
                        if len(text) != size:
                            break
                        row["text"] = text.decode(errors="replace")
                    yield str(row.pop("instance")), row
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            log.debug("black_box_file_cut_off", path=str(path), error=str(error))


def segments_in(folder: Path, signal: str) -> list[Path]:
    """Segments of a ring of one signal, in order of time."""
    return sorted((folder / signal).glob(f"*{SUFFIX}"))


def since(folder: Path) -> float | None:
    """When a ring's pages begin, Unix seconds; None where it has none."""
    names = [path.name.partition(".")[0] for path in (folder / PAGES).glob(f"*{_PAGES_SUFFIX}")]
    return min((int(name) / 1000 for name in names if name.isdecimal()), default=None)
