"""Pages as a source reads them, one after the other."""

from __future__ import annotations

from agent.engine_table import find_table
from agent.pages.page import PageReader
from agent.pages.samples import Sampler, Scrape
from base.vocabulary import Signal

FINISHED = Signal.REQUESTS_FINISHED_TOTAL


def scrapes(*pages: str, engine: str = "triton") -> list[Scrape]:
    reader, sampler = PageReader(), Sampler(find_table(engine))
    return [sampler.sample(reader.read(page.encode())) for page in pages]


def gained(scrape: Scrape, signal: Signal = FINISHED) -> float | None:
    found = [one.deltas[signal] for one in scrape.samples if signal in one.deltas]
    return sum(found) if found else None
