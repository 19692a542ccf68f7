"""What every way to receive is, and what one is made from.

A way to receive is a file of ``collector/receivers/`` with a function ``receiver(scene)`` that makes one, or gives None
where the configuration does not want it. Nothing lists them. What one takes goes to the intake, which checks it,
knows repeats and makes it durable before it is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from collector.auth import Door
    from collector.config import CollectorConfig
    from collector.intake import Intake
    from collector.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Scene:
    """What a way to receive is made from.

    Args:
        config: The collector's settings.
        door: Tells who a sender is, and whether it may come in.
        intake: Takes what came.
        ledger: Counts what was not taken; the intake counts the rest.
        unread: Whether nobody reads what comes: whoever sends may take longer over it.
    """

    config: CollectorConfig
    door: Door
    intake: Intake
    ledger: Ledger
    unread: Callable[[], bool]


class Receiver:
    """A way to receive: routes of the collector's own HTTP server, or a port of its own, or both."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Routes of the collector's HTTP server, which leaves bodies compressed."""
        return ()

    async def open(self) -> None:
        """Listen on a port of its own.

        Raises:
            PortInUseError: It is taken.
        """

    async def close(self) -> None:
        """Stop listening; what is under way is answered first. Also where it never listened."""
