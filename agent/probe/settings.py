"""What probes tell of their engines' configurations, one of each server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.probe.datagram import Config, Process
    from agent.target import Target

_MOST: Final = 512
_FLAGS: Final = frozenset({"enable_prefix_caching", "enable_chunked_prefill"})
_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


def worded(config: Config) -> dict[str, str]:
    """A configuration as ``instance_config`` has it, worded as vLLM's own page does; what is unknown is left out.

    A word that is none (a path, a sentence) is unknown.
    """
    found = {}
    for name, value in config._asdict().items():
        if isinstance(value, str):
            if _WORD.fullmatch(value):
                found[name] = value
        elif value >= 0:
            found[name] = str(bool(value)) if name in _FLAGS else str(value)
    return found


class Settings:
    """Configurations by engine core, until it is known whose they are and after."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Process, int], dict[str, str]] = {}
        self._ranks: dict[str, dict[int, dict[str, str]]] = {}

    def add(self, process: Process, rank: int, config: Config) -> None:
        """A process told that of the engine core of this data-parallel rank."""
        if len(self._waiting) >= _MOST:  # of processes that are nobody's; who is somebody's tells again
            self._waiting.clear()
        self._waiting[process, rank] = worded(config)

    def forget(self, instance: str) -> None:
        """What a server was configured with is not the next one's of its name."""
        self._ranks.pop(instance, None)

    def take(self, find: Callable[[Process], Target | None]) -> dict[str, dict[str, str]]:
        """The configuration of each server that told of its own since the last call.

        The cores of a server are configured as one; where they differ the lowest rank's is told.

        Args:
            find: Whose a process is; None as long as nobody knows.
        """
        told = set()
        for (process, rank), config in list(self._waiting.items()):
            if (target := find(process)) is not None:
                ranks = self._ranks.setdefault(target.instance, {})
                if len(ranks) >= _MOST:
                    ranks.clear()
                ranks[rank] = config
                told.add(target.instance)
                del self._waiting[process, rank]
        return {name: ranks[min(ranks)] for name in told if (ranks := self._ranks[name])}
