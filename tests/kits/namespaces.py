"""Two network namespaces and the cable between them; what runs in one reaches nothing but the other."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest

from tests.kits.needs import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CLONE_NEWNET = 0x40000000
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Namespace:
    """One end: its name, its address, and the interface that has it."""

    name: str
    address: str
    interface: str

    def do(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call a function in here: its connections and the processes that it starts are this namespace's."""
        done: list[_R] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self._enter()
                done.append(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                failed.append(error)

        # Namespaces are a thread's, not the process's: no other thread of this test moves.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def _enter(self) -> None:
        with Path("/run/netns", self.name).open("rb") as here:
            if ctypes.CDLL(None, use_errno=True).setns(here.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns", self.name)

    def plug(self, state: str) -> None:
        """Set its end of the cable ``up`` or ``down``."""
        _ip("-n", self.name, "link", "set", self.interface, state)


def joined() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces joined by a veth pair, gone afterwards; skips the test where nobody may make them."""
    need("ip", "iproute2")
    number = os.getpid() % 16_000
    subnet = f"10.213.{number // 64}.{number % 64 * 4}".rsplit(".", 1)
    ends = [
        Namespace(f"servescope-{number}-{side}", f"{subnet[0]}.{int(subnet[1]) + host}", f"ss{number}{side}")
        for side, host in (("a", 1), ("b", 2))
    ]
    try:
        # That a container may not make namespaces is no lack of the machine that somebody could install.
        try:
            for one in ends:
                _ip("netns", "add", one.name)
            _ip("link", "add", ends[0].interface, "netns", ends[0].name, "type", "veth",
                "peer", "name", ends[1].interface, "netns", ends[1].name)  # fmt: skip
        except PermissionError as refused:
            pytest.skip(f"may make no network namespaces: {refused}")
        for one in ends:
            _ip("-n", one.name, "address", "add", f"{one.address}/30", "dev", one.interface)
            _ip("-n", one.name, "link", "set", "lo", "up")
            one.plug("up")
        yield ends[0], ends[1]
    finally:
        for one in ends:
            subprocess.run(["ip", "netns", "delete", one.name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if "not permitted" in done.stderr or "Permission denied" in done.stderr:
        raise PermissionError(done.stderr.strip())
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
