"""What routers and gateways tell of the requests that they hand on: held back, before and after their first token."""

from __future__ import annotations

import pytest

from agent.engine_table import detect
from agent.pages.page import parse
from agent.pages.samples import EngineSample, Sampler
from base.vocabulary import Distribution

SERVERS = ("http://10.0.0.1:8000", "http://10.0.0.2:8000")
QUEUE = "llm_d_epp_flow_control_request_queue_duration_seconds"
OLD_QUEUE = "inference_extension_flow_control_request_queue_duration_seconds"


def samples(*pages: str) -> tuple[EngineSample, ...]:
    """Of the last of these pages."""
    sampler = Sampler(detect(parse(pages[0].encode())))
    return [sampler.sample(parse(page.encode())).samples for page in pages][-1]


def test_vllms_router_tells_who_is_in_prefill_and_who_in_decode():
    page = "".join(
        f'vllm:num_prefill_requests{{server="{server}"}} {place + 1}\n'
        f'vllm:num_decoding_requests{{server="{server}"}} {place + 4}\n'
        f'vllm:num_requests_running{{server="{server}"}} {2 * place + 5}\n'
        for place, server in enumerate(SERVERS)
    )
    (found,) = samples(page)
    assert found.gauges == {"running": 5 + 7, "requests_in_prefill": 1 + 2, "requests_in_decode": 4 + 5}


def test_of_dynamos_stages_routing_is_waiting_and_the_one_at_a_worker_prefill_and_makes_no_sample_of_its_own():
    # who has no first token yet, whatever is done for it
    page = 'dynamo_frontend_queued_requests{model="qwen/qwen3"} 7\n'
    page += 'dynamo_frontend_active_requests{model="qwen/qwen3"} 9\n'
    for stage, phase, waiting in (("preprocess", "", 1), ("route", "prefill", 2), ("dispatch", "prefill", 3)):
        page += f'dynamo_frontend_stage_requests{{stage="{stage}",phase="{phase}"}} {waiting}\n'
    page += 'dynamo_frontend_stage_requests{stage="dispatch",phase="aggregated"} 1\n'
    (found,) = samples(page)
    assert found.gauges == {"running": 9, "waiting": 2, "requests_in_prefill": 3 + 1}


def test_aibrix_tells_outstanding_prefills():
    page = "gateway_in_flight_requests 7\ngateway_prefill_outstanding_requests 2\n"
    (found,) = samples(page + 'gateway_request_model_success_total{model="m"} 5\n')[:1]
    assert found.gauges == {"running": 7, "requests_in_prefill": 2}


@pytest.mark.parametrize(("name", "other"), [(QUEUE, OLD_QUEUE), (OLD_QUEUE, "")])
def test_the_endpoint_pickers_queue_has_its_time_whatever_became_of_the_request(name: str, other: str):
    def page(dispatched: int, evicted: int) -> str:
        text = 'llm_d_epp_request_running{model_name="m"} 3\n'
        for family in filter(None, (name, other)):
            for outcome, count, bucket in (("Dispatched", dispatched, "0.5"), ("EvictedTTL", evicted, "+Inf")):
                labels = f'fairness_id="a",priority="0",outcome="{outcome}",inference_pool="p",model_name="m"'
                for le in ("0.5", "+Inf"):
                    held = count if float(le) >= float(bucket) else 0
                    text += f'{family}_bucket{{{labels},le="{le}"}} {held}\n'
                text += f"{family}_sum{{{labels}}} {count * 0.25}\n{family}_count{{{labels}}} {count}\n"
        return text

    (found,) = samples(page(4, 0), page(8, 2))
    assert found.totals["queue_seconds_total"] == 8 * 0.25 + 2 * 0.25
    (held,) = [one for one in found.histograms if one.distribution == Distribution.QUEUE_SECONDS]
    assert (held.count, held.total, list(held.counts)) == (6, 1.5, [4, 2])


def test_dynamos_frontend_tells_what_a_prompt_takes_before_a_worker_has_it_and_its_text_after():
    stages = (("preprocess", 12.5), ("route", 0.25), ("transport_roundtrip", 90.0))
    page = 'dynamo_frontend_active_requests{model="qwen/qwen3"} 1\n'
    page += 'dynamo_frontend_requests_started_total{model="qwen/qwen3",endpoint="completions"} 8\n'
    for stage, total in stages:
        page += f'dynamo_frontend_stage_duration_seconds_sum{{stage="{stage}"}} {total}\n'
        page += f'dynamo_frontend_stage_duration_seconds_count{{stage="{stage}"}} 8\n'
    page += "dynamo_frontend_detokenize_total_us 750000\ndynamo_frontend_detokenize_token_count 900\n"
    (found,) = samples(page)
    assert found.totals == {
        "requests_received_total": 8, "compute_input_seconds_total": 12.5, "compute_output_seconds_total": 0.75,
    }  # fmt: skip


def test_what_waits_at_one_of_dynamos_workers_was_not_taken_up_or_is_held_at_its_engines_door():
    page = "dynamo_component_inflight_requests 9\ndynamo_request_queue 2\n"
    (found,) = samples(page + "dynamo_backend_admission_request_queue_count 3\n")
    assert found.gauges == {"running": 9, "waiting": 2 + 3}
