"""NVIDIA NIM for LLMs 1.x (recorded page of a Llama 3.1 8B): vLLM's names without any prefix.

Later versions on vLLM's own page are read as vLLM. Nothing but the set of names tells this page from other programs'.
Source: https://docs.nvidia.com/nim/large-language-models/latest/observability.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import BARE, Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout, Page

_OWN: Final = ("num_request_max", "request_finish_total", "request_failure_total")
"""Names that vLLM does not have."""
_SHARED: Final = ("num_requests_running", "num_requests_waiting", "gpu_cache_usage_perc", "prompt_tokens_total")

RULES = (
    Rule(Signal.RUNNING, "num_requests_running"),
    Rule(Signal.WAITING, "num_requests_waiting"),
    Rule(Signal.KV_CACHE_USAGE_RATIO, "gpu_cache_usage_perc", combine="max"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "generation_tokens_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "request_success_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "request_failure_total"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "e2e_request_latency_seconds_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "time_to_first_token_seconds"),
    # Its count is tokens less requests: the gaps, in spite of the name.
    Histogram(Distribution.ITL_SECONDS, "time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "e2e_request_latency_seconds"),
    Histogram(Distribution.PROMPT_TOKENS, "request_prompt_tokens"),
    Histogram(Distribution.COMPLETION_TOKENS, "request_generation_tokens"),
)
IGNORED = {
    **because("a limit, which is configuration", "num_request_max"),
    **because("successful requests by reason", "request_finish_total"),
    **because(
        "GPU samples have it from the driver, each second",
        "gpu_utilization",
        "gpu_power_usage_watts",
        "gpu_total_energy_consumption_joules",
        "gpu_memory_used_bytes",
        "gpu_memory_total_bytes",
    ),
}


def _signs(layout: Layout) -> bool:
    names = layout.places
    return any(name in names for name in _OWN) or sum(name in names for name in _SHARED) > 1


def _notes(_page: Page) -> list[str]:
    return [
        "these names have no prefix and could be another program's: give the target an engine where this is no NIM",
        "requests_finished_total are the successes; failures stand apart",
    ]


TABLE = Table(
    engine="nim",
    prefixes=(),
    signs=_signs,
    marks=_OWN,
    strength=BARE,
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("model_name",),
    page_path="/v1/metrics",
    health_path="/v1/health/ready",
    notes=_notes,
)
