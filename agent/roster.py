"""Who is watched, and who says so: the servers of all finders together, bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.target import Target


@dataclass(frozen=True, slots=True)
class Change:
    """What a word of a finder changes; a server that moved to another address is in both.

    Attributes:
        left: Targets that are watched no longer.
        found: Targets that are watched from here on.
    """

    left: list[Target] = field(default_factory=list)
    found: list[Target] = field(default_factory=list)


class Roster:
    """Puts together what finders tell.

    An instance is watched as the first who named it says, until that one names it no longer and nobody else does.

    Args:
        most: How many are watched at most.

    Attributes:
        left: How many have left since the start, by who let them go.
    """

    def __init__(self, most: int) -> None:
        self.left: dict[str, int] = {}
        self._most = most
        self._claims: dict[str, dict[str, Target]] = {}
        self._over: dict[str, int] = {}
        self._watched: dict[str, tuple[str, Target]] = {}

    @property
    def targets(self) -> list[Target]:
        """The servers that are watched."""
        return [target for _, target in self._watched.values()]

    def named_by(self, by: str) -> list[Target]:
        """What a finder told of last, up to the bound."""
        return list(self._claims.get(by, {}).values())

    def tell(self, by: str, targets: Sequence[Target]) -> Change:
        """A finder tells of all that it knows.

        Args:
            by: Its name.
            targets: Its servers; of two with one instance the first counts.
        """
        told: dict[str, Target] = {}
        # Those that are watched come first: which of too many are watched does not change with their order.
        for target in sorted(targets, key=lambda one: self._watched.get(one.instance, ("",))[0] != by):
            told.setdefault(target.instance, target)
        self._claims[by] = dict(islice(told.items(), self._most))
        self._over[by] = max(0, len(told) - self._most)
        change = Change()
        for instance, (holder, target) in list(self._watched.items()):
            if holder == by and self._claims[by].get(instance) != target:
                del self._watched[instance]
                change.left.append(target)
        for name, claims in self._claims.items():
            for instance, target in claims.items():
                if self._may_enter(name, target):
                    self._watched[instance] = (name, target)
                    change.found.append(target)
        same = [target for target in change.left if target in change.found]  # somebody else names it too
        change.left[:] = [target for target in change.left if target not in same]
        change.found[:] = [target for target in change.found if target not in same]
        self.left[by] = self.left.get(by, 0) + len(change.left)
        return change

    def problems(self) -> list[str]:
        """What is named and not watched, in plain English."""
        waiting = sum(self._over.values())
        clashes = []
        for name, claims in self._claims.items():
            for instance, target in claims.items():
                holder, watched = self._watched.get(instance, ("", None))
                if watched is None:
                    waiting += not self._is_elsewhere(name, target)
                elif holder != name and watched != target:
                    clashes.append(f"{instance} of {name} is not watched: {holder} has another server of that name")
        told = [f"{waiting} servers are not watched: agent.max_targets is {self._most}"] if waiting else []
        return told + clashes[:3]

    def _may_enter(self, by: str, target: Target) -> bool:
        return (
            target.instance not in self._watched
            and len(self._watched) < self._most
            and not self._is_elsewhere(by, target)
        )

    def _is_elsewhere(self, by: str, target: Target) -> bool:
        """Whether somebody else names the same server under another name."""
        place = target.url, target.metrics_url
        return any(holder != by and (one.url, one.metrics_url) == place for holder, one in self._watched.values())
