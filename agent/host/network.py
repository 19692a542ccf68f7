"""Network of an instance's pod: that of its processes' network namespace, loopback left out. Source: ``proc(5)``."""

from __future__ import annotations

from typing import Final

from agent.host.reading import read

_LOOPBACK: Final = b"lo"


def traffic(pid: int, proc: str = "/proc") -> dict[str, float]:
    """Bytes, drops and TCP retransmissions as seen by a process; what can't be read is left out."""
    found: dict[str, float] = {}
    try:
        received = sent = dropped = 0
        for line in read(f"{proc}/{pid}/net/dev").splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            if name.strip() == _LOOPBACK:
                continue
            fields = [int(one) for one in numbers.split()]
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
        names, values = [line.split() for line in read(f"{proc}/{pid}/net/snmp").splitlines() if line[:4] == b"Tcp:"]
        found["tcp_retransmits_total"] = float(values[names.index(b"RetransSegs")])
    except (OSError, ValueError, IndexError):
        pass  # hidden from this container
    return found
