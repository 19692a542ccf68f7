"""A named pipe through which the engine hands out an answer while it makes it.

``SELECT … INTO OUTFILE '<pipe>'`` writes every format exactly as a server would, in constant memory: a client that
reads slowly slows the query down, and closing our end stops it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PIPE_BYTES = 1 << 20


class Pipe:
    """Our end of one answer's pipe; lives on the event loop.

    Args:
        folder: Where the pipe's name is made; it is gone after ``close``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.out"
        os.mkfifo(self.path, 0o600)
        # Read-write, so that the engine may open, write and close before we look, and not be taken for the end.
        self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:
            # Past the user's pipe quota the pipe keeps its 64 KiB: slower, not wrong.
            self._small = True
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._finished = False
        self._loop.add_reader(self._descriptor, self._wake.set)

    def finish(self) -> None:
        """Say that the query has ended: what is in the pipe now is all there will be."""
        self._finished = True
        self._wake.set()

    async def read(self) -> bytes:
        """The next bytes, b'' at the end of the answer or after ``close``."""
        while self._descriptor is not None:
            self._wake.clear()
            last = self._finished
            try:
                return os.read(self._descriptor, _PIPE_BYTES)
            except BlockingIOError:
                if last:
                    return b""
            await self._wake.wait()
        return b""

    def close(self) -> None:
        """Close our end; a query that still writes fails with a broken pipe."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self.path.unlink(missing_ok=True)
        self._finished = True
        self._wake.set()
