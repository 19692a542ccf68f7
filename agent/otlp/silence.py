"""Engines that were started to send their spans here and send none: told once requests finish without them.

What an engine is to send is read off the command line of its own processes, for its page does not say it: an address
of this machine with a port of ours. An engine that is configured in another way is not judged, and neither is one of
which nobody knows that requests finish.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from agent.otlp.encode import attributes, encode_event
from base.formats import rounded
from base.vocabulary import EVENT_BROKEN, EVENT_MENDED, Breach

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from agent.host.engines import Engines
    from agent.otlp.emit import Emit
    from agent.otlp.intake import SpanStats
    from agent.target import Known, Place, Target

REQUESTS: Final = 20
"""Requests that finish with an answer and no span before that is told: of others an engine may send none."""
SECONDS: Final = 30.0
"""And for how long: an engine's exporter sends some seconds late."""
_WHAT: Final = "spans"
_HERE: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):(\d{1,5})(?!\d)")


@dataclass(slots=True)
class _Account:
    """One engine that is to send: its requests, spans and groups of nobody when spans last came, or were first due."""

    served: float
    seen: float
    unmatched: int
    at: float
    told: bool = False


@dataclass(slots=True)
class Silence:
    """Watches engines of this machine.

    Args:
        engines: Their processes.
        stats: What came in.
        known: What an instance told of itself.
        place: Where this agent runs.
    """

    engines: Engines
    stats: SpanStats
    known: Callable[[str], Known | None]
    place: Place
    _sends: dict[int, bool] = field(default_factory=dict)
    _accounts: dict[str, _Account] = field(default_factory=dict)

    def look(self, ports: Collection[int], now: float, emit: Emit) -> None:
        """Tell of engines that fell silent, or speak.

        Args:
            ports: On which spans are taken.
            now: Any steady clock, seconds.
            emit: Takes the events.
        """
        alive = {pid for processes in self.engines.processes.values() for pid in processes}
        self._sends = {pid: sends for pid, sends in self._sends.items() if pid in alive}
        for target in self.engines.targets:
            known = self.known(target.instance)
            told = [self._is_to_send(pid, ports) for pid in self.engines.processes.get(target.instance, {})]
            if known is None or None in told or not told:
                continue
            if any(told):
                self._judge(target, known, now, emit)
            elif (account := self._accounts.pop(target.instance, None)) is not None and account.told:
                self._tell(target, known, EVENT_MENDED, "is not set up to send its spans here any more", emit)

    def forget(self, targets: Iterable[Target]) -> None:
        """Judge these no longer."""
        for target in targets:
            self._accounts.pop(target.instance, None)

    def silent(self) -> Mapping[str, float]:
        """Since when (of the clock of :meth:`look`) each silent engine has told nothing, by instance."""
        return {instance: account.at for instance, account in self._accounts.items() if account.told}

    def _is_to_send(self, pid: int, ports: Collection[int]) -> bool | None:
        """Whether a process was started to send here; None where nobody can say."""
        if pid not in self._sends:
            try:
                line = psutil.Process(pid).cmdline()
            except psutil.Error:
                return None  # ended meanwhile, or another user's
            self._sends[pid] = any(int(port) in ports for one in line for port in _HERE.findall(one))
        return self._sends[pid]

    def _judge(self, target: Target, known: Known, now: float, emit: Emit) -> None:
        seen = self.stats.last_seen.get(target.instance, 0.0)
        account = self._accounts.get(target.instance)
        if account is None or seen != account.seen:
            self._accounts[target.instance] = _Account(known.served, seen, self.stats.unmatched, now)
            if account is not None and account.told:
                self._tell(target, known, EVENT_MENDED, "sends spans again", emit)
            return
        served = known.served - account.served
        if account.told or served < REQUESTS or now - account.at < SECONDS:
            return
        account.told = True
        ever = "no span came from it" if seen else "it never sent a span"
        said = (
            f"was started to send its spans here, and {ever} while {served:.0f} requests finished in "
            f"{rounded(round(now - account.at))}"
        )
        if strangers := self.stats.unmatched - account.unmatched:
            said += f"; {strangers} groups of spans of no known server came: its service.name may be none of ours"
        self._tell(target, known, EVENT_BROKEN, said, emit)

    def _tell(self, target: Target, known: Known, event: str, said: str, emit: Emit) -> None:
        whose = attributes(target, self.place, known.version)
        details = {"kind": Breach.SILENT.value, "what": _WHAT}
        message = f"{target.instance} {said}"
        emit("logs", encode_event(whose, event, message, time.time_ns(), details, warning=event == EVENT_BROKEN))
