"""Data folders: where they are, and which one is meant."""

from __future__ import annotations

import os
from pathlib import Path

from base.errors import ConfigError


def default(name: str = "servescope") -> Path:
    """``$XDG_DATA_HOME/<name>``, by default under ``~/.local/share``."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / name


def made(data: str | Path | None, name: str = "servescope") -> Path:
    """The folder that was named, or the default of this name; made where there is none.

    Raises:
        ConfigError: It can't be made.
    """
    folder = Path(data).expanduser() if data else default(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data folder {folder} can't be made: {error.strerror}", "Choose another --data"
        ) from error
    return folder
