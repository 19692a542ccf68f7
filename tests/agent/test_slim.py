"""What a process holds that scrapes: nothing that only others need, and of servers that are alike one page's series."""

from __future__ import annotations

import gc
import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path
from weakref import ref

import pytest
import uvloop
from click.testing import CliRunner

from agent.__main__ import main
from agent.engine_table import find_table
from agent.pages.page import Limits, PageReader
from agent.pages.samples import Sampler

PAGE = Path(__file__).parent.parent / "fixtures/vllm/metrics_busy_04.txt.gz"
SCRAPING = "import base.slim, agent.sources.metrics_page, agent.target; from agent.engine_table import tables; tables()"
"""What ``benchmarks.scrape`` loads; ``agent/__main__.py`` begins with the same."""
NOT_OF_SCRAPING = (
    "aiohttp.web", "click", "google.protobuf", "grpc", "msgspec", "opentelemetry", "pydantic", "pygments", "rich",
    "yaml", "zmq", "zstandard",
)  # fmt: skip
FURTHER_BYTES = 300_000
"""For a further server like one that is watched: its page's lines twice, and where its values stand."""


def said(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_what_scrapes_loads_nothing_of_what_others_need():
    loaded = set(said(f"{SCRAPING}; import sys; print(*sys.modules)"))
    assert "aiohttp" in loaded
    assert not loaded & set(NOT_OF_SCRAPING)


@pytest.mark.parametrize("program", ["agent.__main__", "agent.tap.__main__"])
def test_programs_beside_a_model_server_draw_no_tracebacks(program: str):
    assert said(f"import {program}, sys; print('structlog' in sys.modules, 'rich' in sys.modules)") == ["True", "False"]


def test_whoever_wants_rich_has_it():
    pytest.importorskip("rich")
    afterwards = "import base.slim, structlog, rich.console; print(structlog.dev.rich, rich.__name__)"
    assert said(afterwards) == ["None", "rich"]
    assert said("import rich, base.slim, sys; print(sys.modules['rich'] is rich)") == ["True"]
    assert said("import structlog, base.slim; print(structlog.dev.rich is None)") == ["False"]


def test_the_agent_runs_on_the_loop_on_which_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    ran = []
    monkeypatch.setattr(uvloop, "run", lambda life: ran.append(life.close()))
    monkeypatch.setattr("agent.__main__.log_to_stderr", lambda _level: None)
    CliRunner().invoke(main, ["--data", str(tmp_path)], catch_exceptions=False)
    assert len(ran) == 1


def test_servers_that_are_alike_have_each_series_once():
    one, other = (PageReader().read(b'up{a="1"} %d\nonly{b="%d"} 1\n' % (value, value)) for value in (1, 2))
    assert one.layout.series[0] is other.layout.series[0]
    assert [page.values[0] for page in (one, other)] == [1, 2]
    assert [page.layout.series[1].labels for page in (one, other)] == [{"b": "1"}, {"b": "2"}]


def test_series_that_no_page_has_any_more_are_let_go_of():
    reader = PageReader()
    gone = ref(reader.read(b'came_and_went{a="1"} 1\n').layout.series[0])
    assert gone() is not None
    reader.read(b"stays 1\n")
    gc.collect()
    assert gone() is None


def test_a_reader_with_a_narrower_bound_does_not_take_over_what_another_knows():
    line = b'ok 1\nwide{a="1",b="2"} 1\n'
    wide = PageReader().read(line)
    narrow = PageReader(Limits(labels=1)).read(line)
    assert (len(wide.layout.series), len(narrow.layout.series), narrow.faults_total) == (2, 1, 1)


def test_a_further_server_costs_little():
    body = gzip.decompress(PAGE.read_bytes())

    def watched() -> tuple[PageReader, Sampler]:
        reader, sampler = PageReader(), Sampler(find_table("vllm"))
        for page in (body, body):
            sampler.sample(reader.read(page))
        return reader, sampler

    kept = [watched()]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept += [watched() for _ in range(4)]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 4
    finally:
        tracemalloc.stop()
    assert len(kept) == 5
    assert each < FURTHER_BYTES
