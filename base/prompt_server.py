"""An HTTP server in a thread that ends when it is told to, and not at the library's next look whether it should."""

from __future__ import annotations

import contextlib
import socket
from http.server import ThreadingHTTPServer


class PromptServer(ThreadingHTTPServer):
    """The library's server; ``shutdown`` takes no half second."""

    daemon_threads = True

    def shutdown(self) -> None:
        """Stop ``serve_forever`` and wait until it has."""
        # On Linux this wakes who waits for connections; elsewhere it may be refused, and the library looks by itself.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)
        super().shutdown()
