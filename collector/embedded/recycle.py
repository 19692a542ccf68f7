"""Starting the engine again in place of one that a query will not leave.

A query that heeds no cancellation can only be ended with its process. The process replaces itself: same id, same
listening socket (clients wait in its queue meanwhile), same lock on the folder, same fence, which the kernel keeps
closed across the change.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from collector.embedded.penalties import Penalties, Record
from collector.embedded.sandbox import PACKAGES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from collector.embedded.places import Client

EXIT_CODE = 75
"""Exit status of a store that had to be recycled and could not replace itself: start it again."""

_ROOT = Path(__file__).resolve().parents[2]
# Behind the fence the folder that holds our packages can't be listed, so they are named instead of looked for; nor can
# the system's table of content types be read, which nobody here asks.
_BOOT = """
import importlib.util, mimetypes, sys
mimetypes.knownfiles.clear()
def boot(root, names, descriptor):
    for name in names:
        spec = importlib.util.spec_from_file_location(
            name, f"{root}/{name}/__init__.py", submodule_search_locations=[f"{root}/{name}"])
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    import base.quiet
    from collector.embedded.serve import serve_again
    serve_again(descriptor)
boot(sys.argv[1], sys.argv[2].split(), int(sys.argv[3]))
"""


@dataclass(frozen=True)
class Past:
    """What the health page tells of earlier lives of this process.

    Attributes:
        recycled: How often it has been recycled.
        reason: Why, the last time.
        at: When, Unix seconds.
        blamed: On whom, see ``Penalties``.
    """

    recycled: int = 0
    reason: str = ""
    at: float = 0.0
    blamed: dict[str, Record] = field(default_factory=dict)


@dataclass(frozen=True)
class Life:
    """All that one life of the process needs, and hands on to the next.

    Attributes:
        data: The store's folder.
        host: Address it listens on.
        owner_hash: Hex SHA-256 of the owner's password.
        listener: Descriptor of the listening socket.
        lock: Descriptor of the folder's lock.
        past: Earlier lives.
    """

    data: str
    host: str
    owner_hash: str
    listener: int
    lock: int
    past: Past


class Recycle:
    """The order to recycle, once given never taken back; lives on the event loop.

    Args:
        past: Earlier lives.
    """

    def __init__(self, past: Past) -> None:
        self.past = past
        self.penalties = Penalties(past.blamed)
        self.why = ""
        self.ordered = asyncio.Event()
        self.listeners: list[Callable[[str], None]] = []

    def order(self, why: str, client: Client | None = None) -> None:
        """Have the process replaced; the ``client`` whose query brought it about is blamed, where one did."""
        self.penalties.blame(client)
        if self.why:
            return
        self.why = why
        structlog.get_logger().error("store_recycling", why=why)
        for listener in self.listeners:
            listener(why)
        self.ordered.set()


def read(descriptor: int) -> Life:
    """What the life before handed on."""
    with open(descriptor, encoding="utf-8") as file:
        found = json.load(file)
    past = found["past"] | {"blamed": {who: (int(n), float(at)) for who, (n, at) in found["past"]["blamed"].items()}}
    return Life(**(found | {"past": Past(**past)}))


def begin_again(life: Life, listener: socket.socket, ordered: Recycle) -> None:
    """Replace this process; it does not return.

    Where that fails the process ends with ``EXIT_CODE``.
    """
    past = Past(life.past.recycled + 1, ordered.why, time.time(), ordered.penalties.records())
    try:
        text = json.dumps(asdict(replace(life, past=past, listener=listener.fileno())))
        paper = os.memfd_create("life", 0)
        os.write(paper, text.encode())
        os.lseek(paper, 0, os.SEEK_SET)
        _hand_on({paper, listener.fileno(), life.lock})
        # The folder that is current now is emptied at the start.
        os.chdir(life.data)
        arguments = ["-P", "-c", _BOOT, str(_ROOT), " ".join(PACKAGES), str(paper)]
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - ourselves, and no shell
    except OSError as error:
        structlog.get_logger().error("store_not_replaced", error=str(error))
    finally:
        os._exit(EXIT_CODE)


def _hand_on(kept: set[int]) -> None:
    """Keep these descriptors open in the next life, and no other."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for descriptor in range(3, min(soft, 1 << 16)):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETFD, 0 if descriptor in kept else fcntl.FD_CLOEXEC)
