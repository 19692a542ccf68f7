"""Network of an instance's pod: that of its processes' network namespace.

What passes a bond, a bridge or a VLAN passes the devices it is made of too, so not every device counts. Those do that
are hardware, or a virtual machine's, but for a port of another that does; and where the default route leads, if that
stands on no other device: a pod's ``eth0``. Where sysfs does not show this namespace, it is the default route's devices
alone, and where there is no such route either, all but loopback. Sources: ``proc(5)``,
Documentation/ABI/testing/sysfs-class-net, https://docs.kernel.org/networking/bonding.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from agent.host.reading import read

_LOOPBACK: Final = "lo"
_LINKS: Final = frozenset({b"1", b"32"})
"""Kinds of devices that frames leave by (Ethernet, InfiniBand): what leaves a tunnel leaves by another device too."""
_NOWHERE: Final = b"0" * 8
_NOWHERE_6: Final = b"0" * 32


class Network:
    """Traffic of one namespace.

    Args:
        proc: The kernel's ``/proc``.
        sys: The kernel's ``/sys``.
    """

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self._proc = proc
        self._sys = sys
        self._devices: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()

    def traffic(self, pid: int) -> dict[str, float]:
        """Bytes, drops and TCP retransmissions as seen by a process; what can't be read is left out."""
        folder = f"{self._proc}/{pid}/net"
        found: dict[str, float] = {}
        try:
            lines = [line.partition(b":") for line in read(f"{folder}/dev").splitlines()[2:]]
            devices = {name.strip().decode(errors="replace"): numbers for name, _, numbers in lines}
            if devices.keys() != self._devices:  # one came or went
                self._devices = frozenset(devices)
                self._counted = self._choose(pid)
            received = sent = dropped = 0
            for name in self._counted:
                fields = [int(one) for one in devices[name].split()]
                received += fields[0]
                sent += fields[8]
                dropped += fields[2] + fields[3] + fields[10] + fields[11]  # errors and drops, both ways
            found |= {
                "network_receive_bytes_total": float(received),
                "network_transmit_bytes_total": float(sent),
                "network_drops_total": float(dropped),
            }
        except (OSError, ValueError, IndexError):
            return {}
        try:
            names, values = [line.split() for line in read(f"{folder}/snmp").splitlines() if line[:4] == b"Tcp:"]
            found["tcp_retransmits_total"] = float(values[names.index(b"RetransSegs")])
        except (OSError, ValueError, IndexError):
            pass  # hidden from this container
        return found

    def _choose(self, pid: int) -> frozenset[str]:
        others = self._devices - {_LOOPBACK}
        routed = _routed(f"{self._proc}/{pid}/net") & others
        theirs = Path(f"{self._proc}/{pid}/root")
        # A container's view, through its root; else our own, where that is the same namespace.
        for view in (theirs / "sys", Path(self._sys)):
            folder = view / "class/net"
            try:
                if {one.name for one in folder.iterdir() if one.is_dir()} == self._devices:
                    return _ends(folder, others, routed) or routed or others
            except OSError:
                continue  # not ours to look into
        return routed or others


def network_of(pid: int, proc: str = "/proc") -> str:
    """The name of a process's network: equal for those that are in one. Where it is hidden, a name of its own."""
    try:
        return os.readlink(f"{proc}/{pid}/ns/net")  # noqa: PTH115 - no path, ``net:[4026531840]``
    except OSError:
        return f"of {pid}"


def _routed(folder: str) -> frozenset[str]:
    """Devices that default routes lead to."""
    found = set()
    try:
        for parts in map(bytes.split, read(f"{folder}/route").splitlines()[1:]):
            if parts[1] == parts[7] == _NOWHERE:
                found.add(parts[0])
    except (OSError, IndexError):
        pass  # hidden, or a kernel without
    try:
        for parts in map(bytes.split, read(f"{folder}/ipv6_route").splitlines()):
            if parts[:2] == [_NOWHERE_6, b"00"]:
                found.add(parts[-1])
    except (OSError, IndexError):
        pass
    return frozenset(name.decode(errors="replace") for name in found)


def _ends(folder: Path, devices: frozenset[str], routed: frozenset[str]) -> frozenset[str]:
    """Devices by which bytes leave this namespace, each byte by one of them.

    Raises:
        OSError: A device went meanwhile, or is not ours to look into.
    """
    hardware = {name for name in devices if (folder / name / "device").is_symlink()}
    # A virtual machine's network card may have a faster one as its port, and counts what passes that.
    ports = {name for name in hardware if (folder / name / "master").is_symlink()}
    ports = {name for name in ports if (folder / name / "master").readlink().name in hardware}
    alone = {
        name
        for name in routed - hardware
        if read(str(folder / name / "type")).strip() in _LINKS
        and not any(one.startswith("lower_") for one in os.listdir(folder / name))  # noqa: PTH208 - names alone
    }
    return frozenset(hardware - ports | alone)
