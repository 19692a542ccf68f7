"""Which target a probe's process belongs to."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from agent.host.engines import find_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.target import Target

LOOK_SECONDS: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 60.0
_KNOWN: Final = 4_096


class Whose:
    """Finds the target by the name that the server was given, else by its process.

    Where neither tells – a container that sees other process ids – the only target is meant; of several, none.

    Args:
        targets: The servers.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = {target.instance: target for target in targets}
        self._by_pid: dict[int, str] = {}
        self._looked = float("-inf")
        self._asked: set[int] = set()

    def watch(self, targets: Sequence[Target]) -> None:
        """These may be meant too."""
        self._targets |= {target.instance: target for target in targets}
        self._asked.clear()
        self._looked = float("-inf")

    def find(self, pid: int, instance: str) -> Target | None:
        """The target of a process; None where it can't be told."""
        if instance in self._targets:
            return self._targets[instance]
        if instance:
            return None
        if (name := self._by_pid.get(pid)) is not None:
            return self._targets.get(name)
        return next(iter(self._targets.values())) if len(self._targets) == 1 else None

    def knows(self, pid: int) -> bool:
        """Whether this process was seen on this machine, under the number that it gives itself."""
        return pid in self._by_pid

    async def look(self, pids: set[int]) -> None:
        """Look for processes that nothing is known of yet, at most every few seconds."""
        now = time.monotonic()
        wait = LOOK_SECONDS if pids - self._asked else _LOOK_AGAIN_SECONDS  # their server may listen by now
        if pids <= self._by_pid.keys() or now - self._looked < wait:
            return
        self._looked = now
        found = await asyncio.to_thread(find_processes, list(self._targets.values()))
        if len(self._by_pid) + len(self._asked) > _KNOWN:
            self._by_pid.clear()
            self._asked.clear()
        for instance, processes in found.items():
            self._by_pid |= dict.fromkeys(processes, instance)
        self._asked = pids - self._by_pid.keys()
