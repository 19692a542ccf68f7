"""Tells a frozen engine: requests are open at the server's door, and no process of it tells of a step any more.

The page of such a server is calm and its health is good: the API server lives, its engine core does not move. One
process's silence says nothing where there are several, since each sees a part of the steps. Nor does silence after a
step that left nothing to do: whoever is still open then is a client that reads slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

FROZEN_SECONDS: Final = 15.0
"""Longer than any step but those of a machine that is no server: a long prompt is prefilled in parts."""
_MOST_RANKS: Final = 1_024


class Waiting(NamedTuple):
    """A request that the model is asked for.

    Attributes:
        instance: Which server.
        since: When it was wholly asked, steady seconds.
        begun: Whether its answer may have begun: then the engine may be done with it.
    """

    instance: str
    since: float
    begun: bool


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
        self._left: dict[str, dict[int, int]] = {}

    def stepped(self, instance: str, now: float, rank: int = -1, left: int | None = None) -> None:
        """A step of this instance was told at ``now`` (steady seconds).

        Args:
            instance: Which.
            now: When it was heard of.
            rank: Of the engine core.
            left: Requests that the core still has; None where the step does not say.
        """
        self._stepped[instance] = now
        if left is not None:
            ranks = self._left.setdefault(instance, {})
            if len(ranks) >= _MOST_RANKS:
                ranks.clear()
            ranks[rank] = left

    def forget(self, instance: str) -> None:
        """Judge an instance no longer."""
        for known in (self.frozen, self._stepped, self._left):
            known.pop(instance, None)

    def silent(self, now: float) -> list[str]:
        """Instances of which no step was told for long."""
        return [instance for instance, stepped in self._stepped.items() if now - stepped > FROZEN_SECONDS]

    def look(self, waiting: Iterable[Waiting], now: float) -> list[Change]:
        """What has changed by ``now`` (steady seconds), while these wait."""
        asked: dict[str, list[float]] = {}
        for one in waiting:
            if not (one.begun and self._is_done(one)):
                asked.setdefault(one.instance, []).append(one.since)
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

    def _is_done(self, one: Waiting) -> bool:
        """Whether the engine has nothing left to do of what it was asked before its last step."""
        ranks = self._left.get(one.instance, {})
        return bool(ranks) and not any(ranks.values()) and one.since <= self._stepped[one.instance]
