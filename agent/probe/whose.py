"""Which target a probe's process belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.host.engines import Engines
    from agent.probe.datagram import Process
    from agent.target import Target

_KNOWN: Final = 4_096


class Whose:
    """Finds the target by the name that the server was given, else by its process.

    Where neither tells – a container that sees other process ids – the only target is meant; of several, none.

    Args:
        targets: The servers.
        engines: The processes of those that run here.
    """

    def __init__(self, targets: Sequence[Target], engines: Engines) -> None:
        self._targets = {target.instance: target for target in targets}
        self._engines = engines
        self._found: object = None
        self._by_pid: dict[int, str] = {}  # those that ended too: their last words are still to come
        self._asked: set[int] = set()

    def watch(self, targets: Sequence[Target]) -> None:
        """These may be meant too."""
        self._targets |= {target.instance: target for target in targets}
        self._engines.watch(targets)
        self._asked.clear()

    def forget(self, targets: Sequence[Target]) -> None:
        """These are meant no longer, and neither are their processes."""
        gone = {target.instance for target in targets}
        for instance in gone:
            self._targets.pop(instance, None)
        self._engines.forget(targets)
        self._by_pid = {pid: name for pid, name in self._by_pid.items() if name not in gone}

    def find(self, process: Process) -> Target | None:
        """The target of a process; None where it can't be told."""
        if process.instance:
            return self._targets.get(process.instance)
        if (name := self._by_pid.get(process.pid)) is not None:
            return self._targets.get(name)
        return next(iter(self._targets.values())) if len(self._targets) == 1 else None

    def knows(self, process: Process) -> bool:
        """Whether this process was seen on this machine, under the number that it gives itself."""
        name = self._by_pid.get(process.pid)
        return name is not None and process.instance in {"", name}

    async def look(self, pids: set[int], now: float) -> None:
        """Look for processes that nothing is known of yet, at ``now`` (monotonic seconds)."""
        if pids <= self._by_pid.keys():
            return
        if pids - self._by_pid.keys() - self._asked:
            self._engines.look_soon(now)
        await self._engines.look(now)
        if self._engines.processes is self._found:
            return
        self._found = self._engines.processes
        if len(self._by_pid) > _KNOWN:
            self._by_pid.clear()
        for instance, processes in self._engines.processes.items():
            self._by_pid |= dict.fromkeys(processes, instance)
        self._asked = pids - self._by_pid.keys()
