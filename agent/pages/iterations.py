"""TensorRT-LLM's iteration statistics: a JSON list that ``trtllm-serve`` has on ``/metrics`` in place of a page.

Each read takes the statistics out of a queue: two readers share them, so that whoever reads must read once and use what
came. What the newest iteration of each rank says is told as the series that the engine's own page has for it. An empty
list says nothing: statistics are off, or nothing ran since the last read.

Fields: https://github.com/NVIDIA/TensorRT-LLM (``docs/source/commands/trtllm-serve``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.pages.page import Page, parse
from base.errors import PageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BEGINS: Final = b"["
_MOST: Final = 100_000
_RANK: Final = "attentionDpRank"
_READ: Final = {
    "numActiveRequests": "trtllm_num_requests_running",
    "numQueuedRequests": "trtllm_num_requests_waiting",
}
_KV: Final = "kvCacheStats"
_KNOWN: Final = frozenset(
    {
        *_READ,
        _KV,
        _RANK,
        "iter",
        "iterLatencyMS",
        "gpuMemUsage",
        "cpuMemUsage",
        "pinnedMemUsage",
        "maxNumActiveRequests",
        "numCompletedRequests",
        "numNewActiveRequests",
        "newActiveRequestsQueueLatencyMS",
        "maxBatchSizeStatic",
        "maxBatchSizeTunerRecommended",
        "maxBatchSizeRuntime",
        "maxNumTokensStatic",
        "maxNumTokensTunerRecommended",
        "maxNumTokensRuntime",
        "crossKvCacheStats",
        "staticBatchingStats",
        "inflightBatchingStats",
        "specDecodingStats",
        "requestStats",
        "timestamp",
    }
)
"""Fields that are read, or are of one iteration among hundreds between two reads."""


@dataclass(frozen=True, slots=True)
class Iterations:
    """What a body of statistics says.

    Args:
        page: The newest iteration of each rank as series of the engine's page.
        count: How many iterations the body had.
        unmapped: Fields that nobody here knows.
    """

    page: Page
    count: int
    unmapped: tuple[str, ...]


def looks_like(body: bytes) -> bool:
    """Whether a body is no page but such a list."""
    return body.lstrip()[:1] == _BEGINS


def read(body: bytes, place: str) -> Iterations:
    """The statistics of one body.

    Raises:
        PageError: It is no list of iterations; ``place`` is where it came from.
    """
    newest: dict[str, Mapping[str, Any]] = {}
    count = 0
    for entry in _entries(body, place):
        count += 1
        rank = str(entry.get(_RANK, "0"))[:20]
        before = newest.get(rank)
        if before is None or _number(entry.get("iter")) >= _number(before.get("iter")):
            newest[rank] = entry
    lines = [line for rank, entry in newest.items() for line in _lines(json.dumps(rank), entry)]
    fields = dict.fromkeys(name for entry in newest.values() for name in entry)
    unmapped = tuple(name[:100] for name in fields if name not in _KNOWN)
    return Iterations(parse("".join(lines)), count, unmapped)


def _entries(body: bytes, place: str) -> Iterator[Mapping[str, Any]]:
    fix = "Give a metrics page, of trtllm-serve /prometheus/metrics"
    try:
        found = json.loads(body)
        # Some versions put the JSON of each iteration into a text.
        entries = [json.loads(one) if isinstance(one, str) else one for one in found[:_MOST]]
    except (ValueError, RecursionError) as error:
        raise PageError(f"{place} has neither a metrics page nor iteration statistics", fix) from error
    for entry in entries:
        if not isinstance(entry, dict) or not entry.keys() & _KNOWN:
            raise PageError(f"{place} has a list of something else than iteration statistics", fix)
        yield entry


def _lines(rank: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for field, name in _READ.items():
        if isinstance(entry.get(field), int | float):
            yield f"{name}{{rank={rank}}} {_number(entry[field])}\n"
    blocks = entry.get(_KV)
    if isinstance(blocks, dict) and _number(blocks.get("maxNumBlocks")) > 0 and "usedNumBlocks" in blocks:
        share = _number(blocks["usedNumBlocks"]) / _number(blocks["maxNumBlocks"])
        yield f"trtllm_kv_cache_utilization{{rank={rank}}} {share!r}\n"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else -1.0
