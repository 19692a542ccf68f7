"""Keeps the black box of the agent on this data folder when an incident opens: what was measured around it, whole.

An agent elsewhere keeps its own when a server there goes silent; this process reaches the one beside it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import structlog

from agent.recording.ring import RING
from alerts.incidents.history import RECORDED
from alerts.incidents.incident import Incident, Moment
from alerts.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alerts.incidents.register import Register
    from alerts.journal import Journal

log = structlog.get_logger()

AFTER_SECONDS: Final = 20.0
"""What still goes into a recording after the opening."""
GIVE_UP_SECONDS: Final = 120.0
"""An incident that opened longer ago is no longer in the black box."""
BOUND_SECONDS: Final = 120.0


class Keeper:
    """Has a recording kept for each incident.

    Args:
        data: The data folder; without a black box in it nothing is done.
        journal: Remembers for which was kept.
        register: Where incidents live.
        clock: Unix seconds.
        keep: Makes a recording with an incident's id in its name; its folder, empty where there was nothing to keep.
    """

    def __init__(
        self,
        data: Path,
        journal: Journal,
        register: Register,
        clock: Callable[[], float],
        keep: Callable[[Path, str], str] | None = None,
    ) -> None:
        self._data, self._journal, self._register, self._clock = data, journal, register, clock
        self._keep = keep or kept

    def once(self) -> None:
        """One pass: one incident whose time has come."""
        if not (self._data / RING).is_dir():
            return
        now = self._clock()
        done = self._journal.section("recorded")
        for incident in self._register.opened_since(now - GIVE_UP_SECONDS):
            if incident.id not in done and now - incident.opened_at >= AFTER_SECONDS:
                self._make(incident)
                return

    def _make(self, incident: Incident) -> None:
        self._note(incident, "")  # before it is made: what trips over it is not repeated for ever
        try:
            folder = self._keep(self._data, incident.id)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("black_box_not_kept", incident=incident.id, error=plain(str(error), 300))
            return
        if folder:
            self._note(incident, folder)

    def _note(self, incident: Incident, folder: str) -> None:
        with self._register.guard:
            draft = self._register.draft(self._clock())
            draft.recorded[incident.id] = folder
            if folder:
                said = f"what was measured around it is kept: servescope replay {plain(folder, 500)}"
                draft.moments.append(Moment(draft.now, incident.id, RECORDED, said, {"folder": folder}))
            self._register.commit(draft)


def kept(data: Path, why: str) -> str:
    """Keep it, in a process beside: parsing takes CPU that pages may want.

    Raises:
        OSError: No process can be started.
        subprocess.SubprocessError: It failed, or took longer than `BOUND_SECONDS`.
    """
    command = [sys.executable, "-m", "agent.recording.keep", str(data), why]
    made = subprocess.run(command, stdout=subprocess.PIPE, timeout=BOUND_SECONDS, check=True)
    return made.stdout.decode().strip()
