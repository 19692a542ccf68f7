"""Every page that is on record: whose it is, what it says, and that nothing on it is left without a word."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from agent.engine_families import BEGINNINGS, COMMON
from agent.engine_table import About, Table, detect, find_table, tables
from agent.pages.page import Page, parse
from agent.pages.probe import describe, probe
from base.errors import PageError, UnknownEngineError
from tests.kits.docs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FIXTURES = ROOT / "tests" / "fixtures"


class Recorded(NamedTuple):
    path: Path
    engine: str
    role: str
    kind: str


def recorded() -> list[Recorded]:
    rows = re.findall(
        r"^\| `(\S+)` \| (\w+) \| (\w+) \| ([\w ]+) \|", (FIXTURES / "PAGES.md").read_text(), re.MULTILINE
    )
    return [Recorded(FIXTURES / page, engine, role, kind) for page, engine, role, kind in rows]


RECORDED = recorded()
PAGES = [one for one in RECORDED if one.kind != "names"]
NAMES = [one for one in RECORDED if one.kind == "names"]


def page_of(path: Path) -> Page:
    return parse(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def named(one: Recorded) -> str:
    return f"{one.path.parent.name}-{one.path.name}"


def test_every_page_on_record_is_listed_and_every_engine_has_one():
    listed = {one.path for one in RECORDED}
    there = {
        path
        for engine in tables()
        for path in FIXTURES.glob(f"{engine}/*.txt*")
        if not path.name.startswith(("infer_", "sse_", "otlp_", "idle_without"))
    }
    assert there <= listed
    assert {one.engine for one in RECORDED} == set(tables())


@pytest.mark.parametrize("one", PAGES, ids=named)
def test_a_page_is_told_by_its_table_and_every_family_is_named(one: Recorded):
    page = page_of(one.path)
    table = detect(page)
    assert (table.engine, table.plays(page.layout)) == (one.engine, one.role)
    assert [family for family in page.layout.families() if not table.knows(family)] == []
    told = describe(page, About())
    assert told["unmapped"] == []
    assert all(value >= 0 for value in told["signals"].values())
    assert all(note and note == note.strip() for note in told["notes"])


READ: dict[str, tuple[dict[str, float], list[str]]] = {
    "bentoml/metrics_busy.txt": (
        {
            "running": 0 + 12, "requests_finished_total": 585 + 0 + 2 + 60, "requests_failed_total": 0,
            "inferences_total": 589, "executions_total": 148,
            "request_seconds_total": 0.0032154360001186433 + 0.1710638740014474 + 63.520375044005505,
        },
        [],
    ),
    "dynamo/frontend_capture_slice.txt": (
        {"running": 0, "prompt_tokens_total": 18408629, "requests_finished_total": 170450},
        ["generation_tokens_total", "request_seconds_total"],
    ),
    "envoy_ai_gateway/extproc_one_chat_request.txt": (
        {
            "prompt_tokens_total": 44, "generation_tokens_total": 14, "requests_finished_total": 1,
            "request_seconds_total": 10.808095311,
        },
        [],
    ),
    "epp/gaie_1.5_inference_objective.txt.gz": (
        {
            "running": 1 + 1, "prompt_tokens_total": 30 + 30 + 40, "generation_tokens_total": 300 + 300 + 400,
            "requests_received_total": 2 + 1 + 1, "requests_finished_total": 2 + 1 + 1,
            "requests_failed_total": 2 + 1 + 1, "request_seconds_total": 1.61 + 0.06 + 0.12,
        },
        [],
    ),
    "infinity/metrics_busy.txt": (  # neither what asked for its health nor for this page
        {"requests_finished_total": 3794, "request_seconds_total": 59.565618494998944},
        [],
    ),
    "kserve/metrics_busy.txt": (
        {
            "requests_received_total": 2107, "requests_finished_total": 1932,
            "compute_input_seconds_total": 0.013390535009421, "compute_infer_seconds_total": 59.564448085999175,
            "compute_output_seconds_total": 0.01262380899333948,
        },
        [],
    ),
    "kserve/metrics_idle.txt": (
        {},
        [
            "requests_finished_total", "compute_input_seconds_total", "compute_infer_seconds_total",
            "compute_output_seconds_total",
        ],
    ),
    "litellm/metrics_busy.txt.gz": (
        {
            "running": 9, "requests_finished_total": 164 + 7 + 1, "requests_failed_total": 7 + 1,
            "prompt_tokens_total": 2310, "generation_tokens_total": 3960, "prefix_cache_queries_total": 2310,
            "prefix_cache_hits_total": 2093, "response_cache_misses_total": 70,
            "request_seconds_total": 23.090012338317866, "queue_seconds_total": 1.318648338317871,
        },
        [],
    ),
    "lmcache/mp_server_loaded.txt": (
        {"prefix_cache_queries_external_total": 20480, "prefix_cache_hits_external_total": 18432},
        [],
    ),
    "mlserver/metrics_busy.txt": (
        {
            "running": 12, "requests_finished_total": 659, "requests_failed_total": 598 + 113,
            "request_seconds_total": 43.36231922000161 + 0.0018963939992318046,
        },
        [],
    ),
    "nim/llm_1.x_llama3.1_8b.txt": (
        {
            "running": 1, "waiting": 0, "kv_cache_usage_ratio": 0.0002848191398461977, "prompt_tokens_total": 109,
            "generation_tokens_total": 174, "requests_finished_total": 5, "requests_failed_total": 0,
            "request_seconds_total": 2.4688401222229004,
        },
        [],
    ),
    "rayserve/metrics_busy.txt.gz": (  # milliseconds
        {
            "running": 9, "waiting": 4, "requests_finished_total": 1 + 24 + 32 + 313, "requests_failed_total": 32 + 24,
            "request_seconds_total": (0.5 + 12 + 3335 + 31005) / 1000, "endpoints_healthy": 1 + 1,
            "queue_seconds_total": 8719 / 1000,
        },
        [],
    ),
    "sglang/0.4.3_busy_queue.txt": (
        {
            "running": 162, "waiting": 2826, "kv_cache_usage_ratio": 0.28, "prompt_tokens_total": 8128902,
            "generation_tokens_total": 7557572, "request_seconds_total": 3116093.850019932,
        },
        ["requests_finished_total"],
    ),
    "torchserve/metrics_busy.txt": (  # microseconds
        {
            "requests_received_total": 155, "requests_finished_total": 146, "request_seconds_total": 64.42031289499998,
            "queue_seconds_total": 59.880651229,
        },
        [],
    ),
    "dynamo/trtllm_worker_passthrough_documented.txt": (
        {"requests_finished_total": 150 + 5, "request_seconds_total": 45.2, "queue_seconds_total": 32.1},
        [
            "running", "waiting", "kv_cache_usage_ratio", "prompt_tokens_total", "generation_tokens_total",
            "prefix_cache_queries_total", "prefix_cache_hits_total", "prefill_seconds_total", "decode_seconds_total",
        ],
    ),
}  # fmt: skip
"""What eyes read on a page, added up where several series are one signal, and what is not on it."""


@pytest.mark.parametrize("path", READ)
def test_a_page_says_what_stands_on_it(path: str):
    told = describe(page_of(FIXTURES / path), About())
    read, missing = READ[path]
    assert told["signals"] == pytest.approx(read, rel=1e-12)
    assert told["missing"] == missing


@pytest.mark.parametrize("one", NAMES, ids=named)
def test_every_name_that_the_makers_have_is_read_or_left_out_by_name(one: Recorded):
    page = page_of(one.path)
    table = find_table(one.engine)
    assert page.layout.types
    assert [name for name in page.layout.types if not table.knows(name)] == []


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.engine)
def test_what_is_left_out_says_why_and_is_not_told_twice(table: Table):
    assert all(len(reason) > 3 for reason in (*table.ignored.values(), *table.others.values()))
    assert not table.ignored.keys() & COMMON.keys()
    own = [name for name in table.ignored if name.startswith(tuple(BEGINNINGS))]
    assert all(name.startswith(table.prefixes) for name in own)


def test_a_page_that_no_name_tells_is_nobodys():
    """An idle Infinity counts its health checks and nothing else: any program with that HTTP layer does."""
    with pytest.raises(UnknownEngineError):
        detect(page_of(FIXTURES / "infinity" / "idle_without_a_name.txt"))


@pytest.mark.parametrize(
    "text",
    [
        'gateway_request_total{route="/shop"} 7\n',
        'gen_ai_client_token_usage_sum{gen_ai_token_type="input",otel_scope_name="my-chat-app"} 12\n',
        "te_tunnels 3\n",
        'queue_depth{queue="mail"} 3\n',
        'http_requests_total{handler="/v1/orders",method="GET",status="2xx"} 4\n',
        "prompt_tokens_total 5\n",
    ],
)
def test_names_that_others_write_too_are_no_engines(text: str):
    """A machine is searched for servers by their pages: somebody else's program is none."""
    with pytest.raises(UnknownEngineError):
        detect(parse(text))


def signals(text: str, engine: str) -> dict[str, float]:
    told = describe(parse(text), About())
    assert told["engine"] == engine
    assert told["unmapped"] == []
    return dict(told["signals"])


VLLM = """\
vllm:num_requests_running{model_name="m",engine="0"} 3
vllm:prompt_tokens_total{model_name="m",engine="0"} 70
"""


@pytest.mark.parametrize(
    ("beside", "engine"),
    [
        ('dynamo_component_requests_total{dynamo_component="backend"} 9\n', "vllm"),
        ("lmcache_mp_l1_read_keys_total 72\n", "vllm"),
        ('request_predict_seconds_count{model_name="m"} 4\nrequest_predict_seconds_sum{model_name="m"} 4\n', "vllm"),
        ("go_goroutines 12\npromhttp_metric_handler_requests_total 3\n", "vllm"),
    ],
)
def test_an_engines_own_names_say_more_than_its_hosts(beside: str, engine: str):
    found = describe(parse(VLLM + beside), About())
    assert found["engine"] == engine
    assert (found["signals"]["running"], found["signals"]["prompt_tokens_total"]) == (3, 70)


def test_a_router_with_an_engines_names_is_a_router():
    text = "".join(f'vllm:num_requests_running{{server="http://10.0.0.{n}:8000"}} {n}\n' for n in (1, 2))
    text += (
        'vllm:num_requests_swapped{server="http://10.0.0.1:8000"} 0\nvllm:avg_itl{server="http://10.0.0.1:8000"} -1\n'
    )
    told = describe(parse(text), About())
    assert (told["engine"], told["role"], told["signals"]) == ("vllm_production_stack_router", "router", {"running": 3})
    text = 'sglang_num_running_reqs{model_name="m",worker_addr="grpc://10.0.0.1:1"} 5\n'
    told = describe(parse(text), About())
    assert (told["engine"], told["role"], told["signals"]) == ("sglang_router", "router", {"running": 5})


def test_missing_written_as_a_number_is_missing():
    unknown = 'lmdeploy:num_requests_running{model_name="m"} -1\nlmdeploy:num_requests_waiting{model_name="m"} 2\n'
    assert signals(unknown, "lmdeploy") == {"waiting": 2}
    two = 'trtllm_kv_cache_utilization{model_name="m",rank="%d"} %s\n'
    assert signals(two % (0, "-1.0") + two % (1, "0.5"), "trtllm") == {"kv_cache_usage_ratio": 0.5}


def test_totals_beside_their_parts_are_not_added():
    text = "".join(
        f'sglang:num_queue_reqs{{model_name="m",tp_rank="0",priority="{priority}"}} {value}\n'
        for priority, value in (("", 7), ("0", 3), ("5", 4))
    )
    assert signals(text, "sglang") == {"waiting": 7}
    text = "".join(
        'gen_ai_client_token_usage_token_sum{gen_ai_request_model="m",otel_scope_name="envoyproxy/ai-gateway",'
        f'gen_ai_token_type="{kind}"}} {value}\n'
        for kind, value in (("input", 10), ("output", 4), ("total", 14))
    )
    assert signals(text, "envoy_ai_gateway") == {"prompt_tokens_total": 10, "generation_tokens_total": 4}


def test_look_ups_in_a_prefix_cache_are_known_only_where_hits_are():
    text = 'sglang:prompt_tokens_total{model_name="m"} 90\n'
    assert signals(text, "sglang") == {"prompt_tokens_total": 90}
    text += 'sglang:cached_tokens_total{model_name="m",cache_source="device"} 20\n'
    text += 'sglang:cached_tokens_total{model_name="m",cache_source="host"} 5\n'
    assert signals(text, "sglang") == {
        "prompt_tokens_total": 90,
        "prefix_cache_queries_total": 90,
        "prefix_cache_hits_total": 25,
        "prefix_cache_hits_device_total": 20,
        "prefix_cache_hits_host_total": 5,
    }


def test_speculative_decoding_by_position():
    page = page_of(FIXTURES / "vllm/metrics_spec_decode.txt.gz")
    found = describe(page, About())["signals"]
    shown = {
        one.labels["position"]: value
        for one, value in zip(page.layout.series, page.values, strict=True)
        if one.name == "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    }
    assert len(shown) > 1
    assert {place: found[f"spec_decode_accepted_at_{place}_total"] for place in shown} == shown
    assert sum(shown.values()) == found["spec_decode_accepted_tokens_total"]
    assert "spec_decode_accepted_at_7_total" not in found


def test_the_newest_word_on_adapters_counts():
    adapters = 'vllm:lora_requests_info{max_lora="4",running_lora_adapters="%s",waiting_lora_adapters="%s"} %d\n'
    text = VLLM + adapters % ("a,b", "c", 1_700_000_000) + adapters % ("a", "", 1_700_000_500)
    found = signals(text, "vllm")
    assert (found["lora_adapters_running"], found["lora_adapters_waiting"], found["lora_slots"]) == (1, 0, 4)
    assert found["lora_adapters_held_back"] == 0
    found = signals(text + adapters % ("a, b", "b,c,d", 1_700_000_900), "vllm")
    assert (found["lora_adapters_running"], found["lora_adapters_waiting"]) == (2, 3)
    assert found["lora_adapters_held_back"] == 2
    for ray in ("ray_vllm:", "ray_vllm_"):
        found = signals(text.replace("vllm:", ray), "vllm")
        assert (found["lora_adapters_running"], found["lora_adapters_waiting"], found["lora_slots"]) == (1, 0, 4)


def family(name: str, total: float, count: int) -> str:
    return f"# TYPE {name} histogram\n{name}_sum {total}\n{name}_count {count}\n"


def test_transfers_are_those_of_the_connector_that_counts_them():
    nixl, mooncake = (
        family(f"vllm:{name}_xfer_time_seconds", 2.5, 10) + family(f"vllm:{name}_bytes_transferred", 4e9, 10)
        for name in ("nixl", "mooncake")
    )
    told = {"kv_transfers_total": 10, "kv_transfer_seconds_total": 2.5, "kv_transfer_bytes_total": 4e9}
    for page in (nixl, mooncake):
        assert signals(VLLM + page, "vllm").items() >= told.items()
    by_dynamo = family("trtllm_kv_transfer_latency_seconds", 2.5, 10) + family("trtllm_kv_transfer_bytes", 4e9, 10)
    assert signals(by_dynamo, "trtllm") == told
    assert signals('sglang:spec_accept_length{model_name="m",tp_rank="0"} 3.25\n', "sglang") == {
        "spec_decode_acceptance_length": 3.25
    }


def test_estimates_that_are_turned_off_are_absent():
    flops = 'vllm:estimated_flops_per_gpu_total{model_name="m",engine="0"} %s\n'
    tokens = 'vllm:generation_tokens_total{model_name="m",engine="0"} 12\n'
    assert "estimated_flops_total" not in signals(VLLM + tokens + flops % 0, "vllm")
    assert signals(VLLM + tokens + flops % "5e+12", "vllm")["estimated_flops_total"] == 5e12
    assert signals(VLLM + flops % 0, "vllm")["estimated_flops_total"] == 0


@pytest.mark.parametrize("keep", [0.1, 0.35, 0.6, 0.85, 0.99])
@pytest.mark.parametrize("one", PAGES[::4], ids=named)
def test_a_page_that_is_cut_anywhere_is_still_read(one: Recorded, keep: float, tmp_path: Path):
    whole = gzip.decompress(one.path.read_bytes()) if one.path.suffix == ".gz" else one.path.read_bytes()
    (tmp_path / "cut.txt").write_bytes(whole[: int(len(whole) * keep)])
    try:
        told = probe(str(tmp_path / "cut.txt"))
    except (UnknownEngineError, PageError):
        return  # what names the engine was cut off, or all that could be read
    json.dumps(told, allow_nan=False)
    assert all(value >= 0 for value in told["signals"].values())
