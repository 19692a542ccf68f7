"""KV cache events, laid out as vLLM lays them out."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec

PAGE = gzip.decompress((Path(__file__).parents[1] / "fixtures/vllm/metrics_busy_04.txt.gz").read_bytes())
SECRET = 770_077_007
"""Token id and hash that nothing may keep."""


def stored(blocks: int, medium: str | None = "GPU") -> dict[str, Any]:
    return {
        "type": "BlockStored", "block_hashes": [SECRET] * blocks, "parent_block_hash": None,
        "token_ids": [SECRET] * 16 * blocks, "block_size": 16, "lora_id": None, "medium": medium, "lora_name": None,
        "extra_keys": [None] * blocks, "group_idx": 0, "kv_cache_spec_kind": "full_attention",
    }  # fmt: skip


def removed(blocks: int, medium: str | None = "GPU") -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": [b"\x00" * 32] * blocks, "medium": medium, "group_idx": 0}


CLEARED = {"type": "AllBlocksCleared"}


def as_array(event: dict[str, Any]) -> list[Any]:
    """The same as a publisher of up to 0.23 lays it out."""
    return list(event.values())


def batch(*events: object, rank: int | None = 0) -> bytes:
    return msgspec.msgpack.encode([1795954647.5, list(events), rank])
