"""What the page of GPUs and hosts says in words, and how amounts with prefixes are written."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from analytics.questions.features import Features
from analytics.questions.gpus import GpuRow
from analytics.questions.hosts import HostRow
from analytics.questions.workload import LengthBin
from dashboard import words
from dashboard.views.hardware import files_in_words, no_delay_in_words, starved_in_words, well_in_words
from dashboard.views.kv_cache import moved_in_words
from dashboard.what_they_are import label


def empty(kind: type, **known: Any) -> Any:
    """A row of which nothing is known but this."""
    nothing = {"str": "", "bool": False, "float": 0.0, "datetime": datetime(2026, 5, 1, tzinfo=UTC)}
    values = {
        field.name: []
        if "list" in str(field.type)
        else {}
        if "dict" in str(field.type)
        else nothing.get(str(field.type))
        for field in fields(kind)
    }
    return kind(**values | known)


GPU = empty(GpuRow, gpu="g", index="0")
HOST = empty(HostRow, instance="vllm-0")


def test_gpus_that_are_well_are_told_as_well_and_no_further_than_they_tell():
    told = replace(GPU, activity_ratio=0.5, power_watts=400.0, throttled_ratio=0.0, xids=0.0)
    assert well_in_words([told] * 3) == (
        "**3 GPUs** 50 % active at 1,200 W: none stands out, none was slowed down, no fault was told."
    )
    assert well_in_words([GPU]) == "**1 GPU**."
    part = replace(told, parent="g", power_watts=None)
    assert well_in_words([told, part, part]).startswith("**1 GPU** 50 % active at 400 W"), "parts have no power"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ([{"delay_ratio": 0.02}, {"delay_ratio": 0.004}],
         ["**No engine is starved**: at most 20 ms a second without a CPU."]),
        ([{"delay_ratio": 1.5}], ["**vllm-0**: its threads waited 1.5 s a second for a CPU"]),
        ([{"delay_ratio": 0.0, "throttled_ratio": 0.25}], ["**vllm-0**: its CPU limit held it back 250 ms a second"]),
        ([{"oom_kills": 2.0}], ["**vllm-0**: the kernel killed 2 processes for lack of memory"]),
        ([{"delay_ratio": 0.0, "open_files": 980.0, "open_files_limit": 1024.0, "open_files_process": "api"}],
         ["**vllm-0**: api had 980 of 1,024 files open: at its limit it takes no connection"]),
        ([{"open_files": 980.0}], []),
        ([{}], []),
        ([], []),
    ],
)  # fmt: skip
def test_who_lacks_a_cpu_or_memory_is_named(known: list[dict[str, Any]], said: list[str]):
    assert starved_in_words([replace(HOST, **one) for one in known]) == said


def test_processes_that_are_seen_are_not_said_to_be_unseen():
    unseen, seen = replace(HOST, processes=0), replace(HOST, processes=2, rss_bytes=1e9, recording="stalled")
    assert "none of its engine's processes is seen" in no_delay_in_words([unseen])
    for hosts in ([seen], [unseen, seen]):
        assert no_delay_in_words(hosts).startswith("An engine's processes are seen, and how long they waited")
    assert "`servescope up`" in no_delay_in_words([])


def test_open_files_are_told_against_what_is_allowed():
    assert files_in_words(replace(HOST, open_files=812.0, open_files_limit=1024.0)) == "812 of 1,024"
    assert files_in_words(replace(HOST, open_files=12_345.0)) == "12,345"
    assert files_in_words(HOST) == "–"


def test_moved_kv_cache_is_told_with_its_speed_and_its_failures():
    told = empty(Features, transfers=3.0, transfer_mean_seconds=0.012, transfer_failures=2.0,
                 moved_while={"transferred": 1.2e9})  # fmt: skip
    assert moved_in_words(told).endswith(
        "3 transfers, 12 ms each. Failed: 2. Transferred at 1.2 GB/s while it went on."
    )


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (312e12, "flop_per_second", "312 TFLOP/s"),
        (1_500_000.0, "bytes_per_second", "1.5 MB/s"),
        (12.0, "bytes_per_second", "12 B/s"),
        (0.0, "bytes_per_second", "0 B/s"),
        (None, "bytes_per_second", "–"),
    ],
)
def test_amounts_with_prefixes(value: float | None, unit: str, said: str):
    assert words.figure(value, unit) == said


def test_a_length_is_told_by_where_it_begins():
    assert label(LengthBin(1024, 2047, requests=1)) == "1,024+"
