"""Tells of engines that freeze and that move again, for whichever source hears of their steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from agent.otlp.encode import attributes, encode_event
from agent.probe.frozen import Freezes, Waiting
from agent.spool.writer import producer_folder
from agent.tap.open_requests import open_now
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

_TAPS_SECONDS: Final = 5.0
"""Between two looks at what is open in taps, while no step is told."""


class Judge:
    """Judges engines by their steps and by who waits at their doors.

    Args:
        scene: Whose taps are looked at, and who is told of events.
        find: The server of that name.

    Attributes:
        freezes: Told of steps.
    """

    def __init__(self, scene: Scene, find: Callable[[str], Target | None]) -> None:
        self.freezes = Freezes()
        self._scene = scene
        self._find = find
        self._at_taps: list[Waiting] = []
        self._due = 0.0

    def forget(self, instance: str) -> None:
        """Judge a server no longer."""
        self.freezes.forget(instance)
        self._at_taps = [one for one in self._at_taps if one.instance != instance]

    def problems(self) -> Iterable[str]:
        """Engines that do not move."""
        for instance, silent in self.freezes.frozen.items():
            yield f"the engine of {instance} has told of no step for {rounded(round(time.monotonic() - silent))}"

    def at_taps(self, now: float) -> Sequence[Waiting]:
        """What taps have open of engines that tell of no step; where a tap stands in front nothing else tells."""
        if now >= self._due:
            self._due = now + _TAPS_SECONDS
            past = now - time.time()
            self._at_taps = [
                # A model's name is known once the request has wholly come; that it is answered a tap does not say.
                Waiting(instance, one.start_ns / 1e9 + past, begun=True)
                for instance in self.freezes.silent(now)
                for one in open_now(producer_folder(self._scene.data / "spool", f"tap-{instance}"))
                if one.operation and one.model
            ]
        return self._at_taps

    def look(self, waiting: Iterable[Waiting], now: float, emit: Emit) -> None:
        """Tell of engines that froze, or move again, by ``now`` (any steady clock, seconds) while these wait."""
        for change in self.freezes.look(waiting, now):
            event, what = ("engine_frozen", "has told") if change.frozen else ("engine_moves", "had told")
            message = (
                f"The engine of {change.instance} {what} of no step for {rounded(round(change.seconds))}; requests open"
                f" at its door: {change.requests}"
            )
            whose = attributes(self._find(change.instance), self._scene.place)
            self._scene.overheard.event(event, change.instance)
            emit("logs", encode_event(whose, event, message, time.time_ns(), warning=change.frozen))
