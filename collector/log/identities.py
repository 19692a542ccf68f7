"""Which identities the journal's files lack still: they are written before the segments that hold them may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.journal import Journal


class Identities:
    """The log's debt to the journal; belongs to the committer's thread.

    Args:
        journal: Told of each request at once, and given those of sealed segments to write.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._owed: list[bytes] = []

    def taken(self, digest: bytes) -> None:
        """A request that is durable in an open segment."""
        self._journal.add(digest)

    def found(self, digest: bytes) -> None:
        """A request that a start found in a segment.

        A crash may have come before its identity was written, and the next one may come after the segment is gone.
        """
        self._journal.add(digest)
        self._owed.append(digest)

    def sealed(self, digests: Iterable[bytes]) -> None:
        """Requests of a segment that is sealed."""
        self._owed += digests

    def persist(self) -> None:
        """Have the journal write what it lacks.

        Raises:
            OSError: The disk refuses; it is tried again the next time.
        """
        self._journal.persist(self._owed)
        self._owed = []
