"""Tells a frozen engine: requests are open at the server's door, and no process of it tells of a step any more.

The page of such a server is calm and its health is good: the API server lives, its engine core does not move. One
process's silence says nothing where there are several, since each sees a part of the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

FROZEN_SECONDS: Final = 15.0
"""Longer than any step but those of a machine that is no server: a long prompt is prefilled in parts."""


class Change(NamedTuple):
    """An engine froze, or moves again.

    Attributes:
        instance: Which.
        frozen: Which of the two.
        seconds: How long nothing has come, or had come.
        requests: Requests that wait for it.
    """

    instance: str
    frozen: bool
    seconds: float
    requests: int


class Freezes:
    """Watches the steps of all instances.

    Attributes:
        frozen: Since when (steady seconds) the engine of each frozen instance has been silent.
    """

    def __init__(self) -> None:
        self.frozen: dict[str, float] = {}
        self._stepped: dict[str, float] = {}

    def stepped(self, instance: str, now: float) -> None:
        """A step of this instance was told at ``now`` (steady seconds)."""
        self._stepped[instance] = now

    def forget(self, instance: str) -> None:
        """Judge an instance no longer."""
        self.frozen.pop(instance, None)
        self._stepped.pop(instance, None)

    def look(self, waiting: Iterable[tuple[str, float]], now: float) -> list[Change]:
        """What has changed by ``now``.

        Args:
            waiting: Instance, and since when it is asked, of each request that waits for a model.
            now: Steady seconds.
        """
        asked: dict[str, list[float]] = {}
        for instance, since in waiting:
            asked.setdefault(instance, []).append(since)
        changes = []
        for instance, stepped in self._stepped.items():
            sinces = asked.get(instance, [])
            silent = now - max(stepped, min(sinces)) if sinces else 0.0
            before = self.frozen.get(instance)
            if silent > FROZEN_SECONDS and before is None:
                self.frozen[instance] = now - silent
                changes.append(Change(instance, frozen=True, seconds=silent, requests=len(sinces)))
            elif before is not None and stepped > before:
                del self.frozen[instance]
                changes.append(Change(instance, frozen=False, seconds=now - before, requests=len(sinces)))
            elif before is not None and not sinces:  # whoever waited has left: nothing tells any more
                del self.frozen[instance]
        return changes
