"""Which Servescopes run on this machine, and which one a command means."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.errors import ConfigError, DataFolderInUseError
from base.locks import is_free
from servescope import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


class SeveralRunError(ConfigError):
    """More than one Servescope runs here and the command did not say which it means; names them."""


def running(data: Path) -> dict[str, Any] | None:
    """``run.json`` of the Servescope that runs over this data folder, None when none does.

    A killed one leaves its file behind, and its process number to others: what counts is who holds the folder's lock.
    """
    try:
        facts: dict[str, Any] = json.loads((data / "run.json").read_text())
        os.kill(int(facts["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    return None if free(data / "lock") else facts


def free(lock: Path) -> bool:
    """Whether there is a lock file that nobody holds."""
    try:
        return is_free(lock)
    except OSError:
        return False


def refuse_running(data: Path) -> None:
    """Refuse to start twice over one data folder.

    Raises:
        DataFolderInUseError: One runs there; names its process and its dashboard.
    """
    facts = running(data)
    if facts is not None:
        where = facts["urls"].get("dashboard") or facts["urls"].get("store", "")
        raise DataFolderInUseError(
            f"a Servescope already runs over {data} (process {facts['pid']}, {where})",
            "Use that one, stop it, or give another folder with --data",
        )


def meant(data: Path | None, clickhouse: str = "") -> Path:
    """The data folder that a command asks: the one named, else the only one over which a Servescope runs.

    Args:
        data: ``--data``.
        clickhouse: ``--clickhouse``: who names a store asks no running one.

    Raises:
        SeveralRunError: Several run; names them.
    """
    if data is not None:
        return data.expanduser()
    default = data_folder.default()
    if clickhouse:
        return default
    found = {folder: facts for folder in _noted() if (facts := running(folder)) is not None}
    if len(found) > 1:
        told = ", ".join(
            f"{folder} ({facts['urls'].get('dashboard', 'no dashboard')})" for folder, facts in found.items()
        )
        raise SeveralRunError(f"{len(found)} Servescopes run here: {told}", "Say which one with --data")
    return next(iter(found), default)


@contextlib.contextmanager
def noted(data: Path) -> Iterator[None]:
    """Let commands find the Servescope that runs over this folder while the block lasts."""
    folder = data.resolve()
    note = _notes() / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):  # it is only found with --data then
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def _noted() -> list[Path]:
    """Folders over which one was started and perhaps still runs; the two usual ones are looked at in any case."""
    found = [data_folder.default(), data_folder.default("servescope-demo")]
    with contextlib.suppress(OSError):
        # In a folder that all may write to, a stranger's is no word of ours.
        own = [note for note in sorted(_notes().iterdir()) if note.lstat().st_uid == os.getuid()]
        found += [Path(note.read_text()) for note in own]
    return list(dict.fromkeys(folder.resolve() for folder in found))


def _notes() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return (
        Path(runtime) / "servescope" if runtime else Path(tempfile.gettempdir()) / f"servescope-running-{os.getuid()}"
    )
