"""What becomes of a segment that the store can't read: others take its place, and what nobody reads is set aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from collector.quarantine import divide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from collector.ledger import Ledger
    from collector.log.segment import Segment
    from collector.quarantine import Quarantine
    from collector.store.client import StoreError

LOG: Final = structlog.get_logger()


class Divider:
    """Divides segments.

    Args:
        quarantine: Takes requests that the store can't read, before their segment goes.
        replace: Puts segments of the given ids and frames in the place of one.
        ledger: Told of what is not stored.
    """

    def __init__(
        self,
        quarantine: Quarantine,
        replace: Callable[[Segment, Sequence[tuple[str, Sequence[bytes]]]], Awaitable[None]],
        ledger: Ledger,
    ) -> None:
        self._quarantine = quarantine
        self._replace = replace
        self._ledger = ledger

    async def divide(self, segment: Segment, error: StoreError) -> None:
        """Put a segment's parts in its place.

        Raises:
            OSError: The disk refuses, or the segment can't be read; it is there still.
        """
        children, apart = await asyncio.to_thread(divide, segment)
        LOG.warning(
            "segment_refused",
            segment=segment.id,
            code=error.code,
            name=error.name,
            requests=segment.bodies,
            becomes=len(children),
        )
        for index, frame in enumerate(apart):
            name, reason = f"{segment.id}-{index}", f"{error.code} {error.name}"
            await asyncio.to_thread(self._quarantine.put, name, frame.message, reason)
        await self._replace(segment, children)
        if lost := sum(frame.records for frame in apart):
            self._ledger.dropped(segment.signal, "quarantined", lost)
