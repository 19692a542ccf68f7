"""What the embedded engine and each of its readers may use."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the engine and each reader may use.

    Attributes:
        server_memory: Bytes the engine may allocate in all.
        mark_cache: Bytes of index marks kept.
        readers: Readers' queries that run at once.
        reader_memory: Bytes a reader's query may use.
        reader_seconds: Wall seconds a reader's query may take.
        reader_result: Bytes a reader's answer may have, as the engine counts its columns.
        reader_threads: Threads of a reader's query.
        body: Bytes of an inserted body after decompression.
        sessions: Sessions that hold a handle of their own.
    """

    server_memory: int = 1_200_000_000
    mark_cache: int = 100_000_000
    readers: int = max(3, min(4, os.cpu_count() or 2))
    reader_memory: int = 300_000_000
    reader_seconds: int = 30
    reader_result: int = 256_000_000
    reader_threads: int = 2
    body: int = 1_000_000_000
    sessions: int = 64
