"""GNU's OpenMP library for llama.cpp, on machines that have none.

``xllamacpp`` needs ``libgomp.so.1``, which a bare Debian lacks. Wheels that were repaired with ``auditwheel`` carry it
under a name of their own; the linker takes such a file when it finds it under the name that it looks for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from base.errors import ServescopeError

NAME: Final = "libgomp.so.1"
_CARRIER: Final = "pykdtree"
_PATH: Final = "LD_LIBRARY_PATH"


def ensure_openmp(folder: Path) -> None:
    """Return when the library can be loaded; else start this process again with ``folder`` on the linker's path.

    Args:
        folder: Gets a link to the library that a wheel carries; made when it is needed.

    Raises:
        ServescopeError: Neither the system nor a wheel has one; names the package.
    """
    try:
        ctypes.CDLL(NAME)
    except OSError:
        found = carried()
        places = os.environ.get(_PATH, "").split(":")
        if found is None or str(folder) in places:
            what = f"llama.cpp needs {NAME}, which this machine lacks"
            raise ServescopeError(what, "Install it (Debian: apt-get install libgomp1).") from None
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / NAME
        link.unlink(missing_ok=True)
        link.symlink_to(found)
        environment = {**os.environ, _PATH: ":".join([str(folder), *filter(None, places)])}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - ourselves again


def carried() -> Path | None:
    """The library that an installed wheel carries, if one does."""
    try:
        files = metadata.files(_CARRIER) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()).resolve() for file in files if file.name.startswith("libgomp")), None)
