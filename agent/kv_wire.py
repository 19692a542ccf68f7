"""KV cache events as vLLM publishes them: msgpack, of which nothing but kinds, numbers of blocks and media is decoded.

Token ids and block hashes, which stand for what people wrote, are passed over as bytes and become no objects here.

A batch is ``[ts, [event, …], data_parallel_rank]``. An event is a map with its kind under ``type``; up to vLLM 0.23 an
array with its kind first and its fields in order. Batches as maps of those names are read too: the newest sources have
dropped the array there as well.

Source: https://github.com/vllm-project/vllm/blob/main/vllm/distributed/kv_events.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from agent.kv_events import tier_of

if TYPE_CHECKING:
    from agent.kv_events import Counts

_ITEMS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_FIELDS: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.msgpack.Decoder(str)
_MEDIUM: Final = msgspec.msgpack.Decoder(str | None)
_RANK: Final = msgspec.msgpack.Decoder(int | None)
_FIXED_MAP: Final = range(0x80, 0x90)
_MAPS: Final = frozenset({0xDE, 0xDF})
_EVENTS_AT, _RANK_AT, _HASHES_AT = 1, 2, 1
_MEDIUM_AT: Final = {"BlockStored": 6, "BlockRemoved": 2}
"""Of events that are arrays, the kind being the first."""
_BAD: Final = (msgspec.MsgspecError, ValueError, RecursionError, IndexError, KeyError)


class _Event(NamedTuple):
    kind: str
    blocks: int = 0
    tier: str = ""


def add(payload: bytes, counts: Counts) -> None:
    """Add a batch to the counts of its publisher.

    What can't be read is counted as that: a batch whole, an event alone.
    """
    try:
        events, rank = _batch(payload)
    except _BAD:
        counts.unread += 1
        return
    counts.batches += 1
    if rank is not None:
        counts.rank = str(rank)
    for raw in events:
        try:
            event = _event(raw)
        except _BAD:
            counts.unread += 1
            continue
        if event.kind == "BlockStored":
            counts.stored[event.tier] += event.blocks
        elif event.kind == "BlockRemoved":
            counts.removed[event.tier] += event.blocks
        elif event.kind == "AllBlocksCleared":
            counts.clears += 1
        else:
            counts.unread += 1


def _batch(payload: bytes) -> tuple[list[Any], int | None]:
    if _is_map(payload):
        fields = _FIELDS.decode(payload)
        return _ITEMS.decode(fields["events"]), _optional(_RANK, fields.get("data_parallel_rank"))
    items = _ITEMS.decode(payload)
    return _ITEMS.decode(items[_EVENTS_AT]), _optional(_RANK, items[_RANK_AT] if len(items) > _RANK_AT else None)


def _event(raw: Any) -> _Event:
    if _is_map(raw):
        fields = _FIELDS.decode(raw)
        kind = _TEXT.decode(fields["type"])
        hashes, medium = fields.get("block_hashes"), fields.get("medium")
    else:
        items = _ITEMS.decode(raw)
        kind = _TEXT.decode(items[0])
        place = _MEDIUM_AT.get(kind, len(items))
        hashes = items[_HASHES_AT] if len(items) > _HASHES_AT else None
        medium = items[place] if len(items) > place else None
    if kind not in _MEDIUM_AT:
        return _Event(kind)
    if hashes is None:
        raise ValueError("no block_hashes")
    return _Event(kind, len(_ITEMS.decode(hashes)), tier_of(_optional(_MEDIUM, medium)))


def _optional(decoder: Any, raw: Any) -> Any:
    return None if raw is None else decoder.decode(raw)


def _is_map(raw: Any) -> bool:
    first = memoryview(raw)[:1].tobytes()
    return bool(first) and (first[0] in _FIXED_MAP or first[0] in _MAPS)
