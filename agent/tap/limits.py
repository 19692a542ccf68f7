"""What bounds one connection of a tap."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds and sizes that bound one connection; 0 seconds means no limit.

    Attributes:
        connect_seconds: To reach the server.
        first_byte_seconds: From the request forwarded to the response's head; as long as the server takes by default.
        stall_seconds: Between two reads of an answer; as long as the server takes by default.
        head_seconds: From a request's first byte to the end of its head.
        client_stall_seconds: A client that neither sends its body on nor takes its answer.
        keep_alive_seconds: An idle client connection.
        drain_seconds: Open requests at shutdown.
        max_connections: Client connections at once.
        patience_seconds: How long a client may wait for the first piece of its answer before its leaving is the
            server's failure.
        max_tunnels: WebSocket sessions at once.
        tunnel_idle_seconds: A tunnel in which neither side says anything.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 0.0
    stall_seconds: float = 0.0
    head_seconds: float = 30.0
    client_stall_seconds: float = 300.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    max_connections: int = 4_096
    patience_seconds: float = 30.0
    max_tunnels: int = 1_024
    tunnel_idle_seconds: float = 3_600.0
