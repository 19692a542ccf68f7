"""TensorRT-LLM's iteration statistics: read once, told as what the engine's page would say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.pages import iterations
from agent.pages.probe import probe
from base.errors import PageError
from tests.kits.docs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "tests" / "fixtures" / "trtllm"


def told(tmp_path: Path, entries: object) -> dict[str, Any]:
    (tmp_path / "stats.json").write_text(json.dumps(entries))
    return probe(str(tmp_path / "stats.json"))


def test_the_documented_statistics():
    found = probe(str(FOLDER / "serve_iteration_stats.json"))
    assert (found["engine"], found["unmapped"]) == ("trtllm", [])
    assert found["signals"] == {"running": 1, "kv_cache_usage_ratio": pytest.approx(3 / 101256)}
    assert "waiting" in found["missing"]
    assert "newest of 1 iterations" in found["notes"][0]


def test_an_empty_list_says_nothing():
    found = probe(str(FOLDER / "serve_iteration_stats_never_filled.json"))
    assert (found["engine"], found["signals"], found["unmapped"]) == ("trtllm", {}, [])
    assert "says nothing" in found["notes"][0]


def test_of_each_rank_the_newest_iteration_counts(tmp_path: Path):
    def one(number: int, rank: int, active: int, used: int) -> dict[str, object]:
        cache = {"usedNumBlocks": used, "maxNumBlocks": 200}
        return {"iter": number, "attentionDpRank": rank, "numActiveRequests": active, "numQueuedRequests": rank,
                "kvCacheStats": cache}  # fmt: skip

    entries = [one(7, 0, 2, 20), one(7, 1, 9, 180), one(9, 1, 4, 40), one(8, 0, 3, 100)]
    want = {"running": 7, "waiting": 1, "kv_cache_usage_ratio": 0.5}
    assert told(tmp_path, entries)["signals"] == want
    assert told(tmp_path, [json.dumps(entry) for entry in entries])["signals"] == want, "each entry in a text"


def test_a_field_that_nobody_knows_is_named(tmp_path: Path):
    assert told(tmp_path, [{"iter": 1, "numActiveRequests": 2, "brandNew": 3}])["unmapped"] == ["brandNew"]


@pytest.mark.parametrize("body", [b"[1, 2]", b"[{}]", b"[", b'["x"]', b'[{"price": 3}]', b"[" * 100_000])
def test_another_list_is_refused(body: bytes):
    assert iterations.looks_like(body)
    with pytest.raises(PageError, match="here has"):
        iterations.read(body, "here")
