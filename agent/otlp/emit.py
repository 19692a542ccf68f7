"""What takes the bodies of OTLP requests that somebody made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

SignalKind = Literal["traces", "metrics", "logs"]
"""Which of the three OTLP requests a body is."""

Emit = Callable[[SignalKind, bytes], object]
"""Takes one whole ``Export…ServiceRequest`` body (protobuf, not compressed). Never blocks, never raises; answers
``False`` where the body had to be dropped, for those who can ask their sender to try again."""
