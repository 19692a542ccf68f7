"""A GPU exporter's page that others scraped becomes the rows that an agent makes of it."""

from __future__ import annotations

import gzip
from pathlib import Path

from agent.gpu_table import reader_of
from agent.pages.page import parse
from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped.derive import Deriver
from tests.kits.scraped import SECOND, START, Taker, clock, page, sent, settled, told, waited, written

__all__ = ["clock"]
PAGES = Path(__file__).parent.parent / "fixtures" / "gpu_exporters"


async def test_gpus_of_remote_write_are_those_of_their_page(clock: list[float]) -> None:
    shown = parse(gzip.decompress((PAGES / "dcgm_a100_mig_4_active_workloads.txt.gz").read_bytes()))
    taker, ledger = Taker(), Ledger()
    deriver = Deriver(taker, ledger)  # type: ignore[arg-type]
    series = written([(START, shown)])
    for half in (0, 1):
        deriver.look(sent(series[half::2]), NOBODY)
    await waited(deriver, clock)
    deriver.look(sent(written([(START + SECOND, shown)])), NOBODY)
    await settled(deriver, clock)
    ours = told(body for signal, body, _ in taker.taken if signal == "metrics")
    reader = reader_of(shown)
    assert reader is not None
    wanted = [(START + at * SECOND, row) for at in (0, 1) for row in reader.read(shown, float(at))]
    by_time_and_gpu = {(time_ns, whose["hw.id"]): (whose, values) for time_ns, whose, values in ours}
    assert len(by_time_and_gpu) == len(wanted) == 10
    for time_ns, row in wanted:
        whose, values = by_time_and_gpu[time_ns, row.whose.gpu]
        assert values == row.values
        assert whose == row.whose.attributes()
    assert ledger.derived._value.get() == 10  # type: ignore[attr-defined]


async def test_an_engines_page_of_the_same_sender_is_read_as_ever(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, page("idle"))])), NOBODY)
    await waited(deriver, clock)
    ((_, whose, values),) = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert whose["servescope.engine"] == "vllm"
    assert "hw.power" not in values
