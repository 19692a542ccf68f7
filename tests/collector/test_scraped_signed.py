"""Engines whose names begin with nothing of their own are found in what others send, and others' programs are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.engine_table import detect, tables
from agent.pages.page import parse
from agent.pages.samples import Sampler
from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped.derive import Deriver
from tests.kits.scraped import SECOND, START, Taker, clock, sent, told, waited, written

if TYPE_CHECKING:
    from agent.pages.page import Page

__all__ = ["clock"]
FIXTURES = Path(__file__).parent.parent / "fixtures"
SIGNED = [
    "nim/llm_1.x_llama3.1_8b.txt",
    "kserve/metrics_busy.txt",
    "kserve/qpext_before.txt",
    "infinity/metrics_busy.txt",
    "trtllm/serve_1.x_unprefixed_slice.txt",
]
AIBRIX = """\
gateway_request_model_success_total{model="m",status="200"} 9
gateway_in_flight_requests{gateway="g"} 2
gateway_output_tokens_total{model="m"} 120
"""


def page_of(path: str) -> Page:
    return parse((FIXTURES / path).read_bytes())


@pytest.mark.parametrize("shown", [*map(page_of, SIGNED), parse(AIBRIX)], ids=[*SIGNED, "aibrix"])
async def test_pages_without_a_beginning_of_their_own_become_samples(clock: list[float], shown: Page) -> None:
    table = detect(shown)
    assert not any(one.name.startswith(table.prefixes) for one in shown.layout.series)
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for turn in (0, 1):
        deriver.look(sent(written([(START + turn * SECOND, shown)])), NOBODY)
        await waited(deriver, clock)
    ours = told(body for signal, body, _ in taker.taken if signal == "metrics")
    wanted = Sampler(table, whole=False).sample(shown).samples
    assert len(wanted) > 0
    assert {whose["servescope.engine"] for _, whose, _ in ours} == {table.engine}
    first = [values for time_ns, _, values in ours if time_ns == START]
    for sample, values in zip(wanted, first, strict=True):
        assert {name: values[name] for name in sample.signals()} == sample.signals()


OTHERS = [
    'http_requests_total{handler="/embeddings-admin",status="2xx"} 5\n',
    "".join(f'http_requests_total{{handler="/v1/{one}",status="2xx"}} 5\n' for one in ("orders", "embeddings")),
    'e2e_request_latency_seconds_sum{service="shop"} 5\nup_since{engine_type="diesel"} 1\n',
    'queue_depth{queue="mail"} 3\nmy_request_predict_seconds_count 4\n',
]


@pytest.mark.parametrize("text", OTHERS)
async def test_names_that_others_write_too_make_no_sample(clock: list[float], text: str) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, parse(text))])), NOBODY)
    await waited(deriver, clock)
    assert taker.taken == []


def test_every_engine_can_be_looked_for_in_what_others_send() -> None:
    assert [one.engine for one in tables().values() if not (one.prefixes or one.spellings or one.marks)] == [
        "vllm_production_stack_router"
    ], "its names begin as vLLM's do"


async def test_the_place_of_one_without_a_beginning_is_read_off_its_series(clock: list[float]) -> None:
    text = (FIXTURES / "nim/llm_1.x_llama3.1_8b.txt").read_text()
    shown = parse(text.replace("{", '{pod="nim-0",namespace="models",node="n3",'))
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, shown)])), NOBODY)
    await waited(deriver, clock)
    ((_, whose, _),) = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert (whose["k8s.pod.name"], whose["k8s.namespace.name"], whose["host.name"]) == ("nim-0", "models", "n3")
