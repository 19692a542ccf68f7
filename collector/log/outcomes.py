"""What the committer's thread has done, told in the event loop's: the books first, then those who wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.log.committer import fail, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.log.admission import Admission, LogFullError
    from collector.log.backlog import Backlog
    from collector.log.committer import Append
    from collector.log.segment import Segment


class Outcomes:
    """Told by ``open_segments`` in the thread, tells admission, backlog and senders in the loop.

    Args:
        post: Has something called in the event loop, in order.
        admission: Told of bytes on disk.
        backlog: Told of records and sealed segments.
    """

    def __init__(self, post: Callable[..., None], admission: Admission, backlog: Backlog) -> None:
        self._post = post
        self._admission = admission
        self._backlog = backlog

    def kept(self, signal: str, run: Sequence[Append]) -> None:
        """Frames that are durable."""
        self._post(self._settle_kept, signal, run)

    def refused(self, run: Sequence[Append], error: LogFullError) -> None:
        """Frames of which the disk has nothing."""
        self._post(fail, [item.done for item in run], error)

    def sealed(self, segment: Segment) -> None:
        """A segment that changes no more."""
        self._post(self._backlog.sealed, segment)

    def _settle_kept(self, signal: str, run: Sequence[Append]) -> None:
        self._admission.grew(sum(len(item.frame) for item in run))
        self._backlog.kept(signal, sum(item.records for item in run))
        succeed(item.done for item in run)
