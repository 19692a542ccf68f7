"""A named pipe through which the engine hands out an answer while it makes it.

``SELECT … INTO OUTFILE '<pipe>'`` writes every format exactly as a server would, in constant memory: a client that
reads slowly slows the query down, and closing our end stops it.

Our end stays open until the engine has opened its own: an open without a reader waits for one for ever, out of reach of
``KILL QUERY``, and one that finds no pipe makes a plain file, which an endless answer then fills.
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
        folder: Where the pipe's name is made; it is gone once the pipe is closed and the engine has opened it or ended.
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
        self._finished = self._opened = self._closed = False
        self._loop.add_reader(self._descriptor, self._wake.set)

    def finish(self) -> None:
        """Say that the query has ended: what is in the pipe now is all there will be."""
        self._finished = True
        self._wake.set()
        if self._closed:
            self._release()

    async def read(self) -> bytes:
        """The next bytes, b'' at the end of the answer or after ``close``."""
        while self._descriptor is not None and not self._closed:
            self._wake.clear()
            last = self._finished
            try:
                chunk = os.read(self._descriptor, _PIPE_BYTES)
            except BlockingIOError:
                if last:
                    return b""
            else:
                self._opened = True
                return chunk
            await self._wake.wait()
        return b""

    def close(self) -> None:
        """Want no more; a query that still writes fails with a broken pipe.

        Where the engine has not come as far as opening the pipe, that waits for its first bytes or for ``finish``.
        """
        self._closed = True
        self._wake.set()
        if self._opened or self._finished:
            self._release()
        elif self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.add_reader(self._descriptor, self._release)

    def _release(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self.path.unlink(missing_ok=True)
