"""Latencies that a question can be about, and what each rests on in rows, histograms and sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from analytics.window import WindowError

LatencySignal = Literal[
    "ttft_seconds",
    "e2e_seconds",
    "itl_mean_seconds",
    "itl_p99_seconds",
    "itl_max_seconds",
    "tpot_seconds",
    "queue_seconds",
    "prefill_seconds",
    "decode_seconds",
    "stall_seconds",
    "edge_seconds",
    "compute_input_seconds",
    "compute_infer_seconds",
    "compute_output_seconds",
]


@dataclass(frozen=True, slots=True)
class Signal:
    """What one latency rests on.

    Attributes:
        name: As asked for.
        title: For people.
        value: SQL over ``requests``: seconds.
        present: SQL over ``requests``: whether the row has this latency (0 may be a true zero).
        distribution: Signal of ``engine_histograms``, empty where engines show none.
        total: Column of ``engine_samples`` that sums it, empty where none.
        divisor: Column of ``engine_samples`` that counts what ``total`` sums over.
    """

    name: str
    title: str
    value: str
    present: str
    distribution: str
    total: str
    divisor: str


_SERVED: Final = "outcome IN ('', 'ok', 'client_abort', 'upstream_reset', 'timeout')"
_WAITED: Final = "outcome IN ('', 'ok', 'timeout')"
_TPOT_EDGE: Final = "has_edge = 1 AND stream = 1 AND ttft_seconds > 0 AND e2e_seconds >= ttft_seconds"
_FINISHED: Final = "requests_finished_delta"

SIGNALS: Final[dict[str, Signal]] = {
    signal.name: signal
    for signal in (
        Signal(
            "ttft_seconds",
            "Time to first token",
            "ttft_seconds",
            f"ttft_seconds > 0 AND {_SERVED}",
            "ttft_seconds",
            "",
            "",
        ),
        Signal(
            "e2e_seconds",
            "End-to-end time",
            "e2e_seconds",
            f"e2e_seconds > 0 AND {_WAITED}",
            "e2e_seconds",
            "request_seconds_delta",
            _FINISHED,
        ),
        Signal(
            "itl_mean_seconds",
            "Inter-token latency, mean per request",
            "itl_mean_seconds",
            "itl_gaps > 0",
            "itl_seconds",
            "",
            "",
        ),
        Signal("itl_p99_seconds", "p99 gap between tokens of a request", "itl_p99_seconds", "itl_gaps > 0", "", "", ""),
        Signal(
            "itl_max_seconds", "Longest gap between tokens of a request", "itl_max_seconds", "itl_gaps > 0", "", "", ""
        ),
        Signal(
            "tpot_seconds",
            "Time per output token",
            f"if({_TPOT_EDGE}, e2e_seconds - ttft_seconds, decode_seconds) / (completion_tokens - 1)",
            f"completion_tokens > 1 AND {_WAITED} AND (({_TPOT_EDGE}) OR (has_engine = 1 AND decode_seconds > 0))",
            "tpot_seconds",
            "decode_seconds_delta",
            "generation_tokens_delta",
        ),
        Signal(
            "queue_seconds",
            "Time in the queue",
            "queue_seconds",
            "has_engine = 1",
            "queue_seconds",
            "queue_seconds_delta",
            _FINISHED,
        ),
        Signal(
            "prefill_seconds",
            "Prefill time",
            "prefill_seconds",
            "has_engine = 1 AND prefill_seconds > 0",
            "prefill_seconds",
            "prefill_seconds_delta",
            _FINISHED,
        ),
        Signal(
            "decode_seconds",
            "Decode time",
            "decode_seconds",
            "has_engine = 1 AND prefill_seconds > 0",
            "decode_seconds",
            "decode_seconds_delta",
            _FINISHED,
        ),
        Signal(
            "stall_seconds",
            "Stall (time lost to preemption or a frozen engine)",
            "stall_seconds",
            "has_engine = 1 AND prefill_seconds > 0",
            "",
            "",
            "",
        ),
        Signal("edge_seconds", "Time at the edge", "edge_seconds", "has_edge = 1", "", "", ""),
        *(
            Signal(
                f"{name}_seconds",
                title,
                f"{name}_seconds",
                "has_engine = 1 AND compute_infer_seconds > 0",
                "",
                f"{name}_seconds_delta",
                _FINISHED,
            )
            for name, title in (
                ("compute_input", "Compute input"),
                ("compute_infer", "Compute"),
                ("compute_output", "Compute output"),
            )
        ),
    )
}
"""All latencies by name.

TTFT counts requests that got a first token, whatever became of them; end-to-end time counts requests that were
answered and those whose client gave up waiting (a lower bound: leaving them out would flatter the tail). A refusal
answered in a millisecond has no latency: it belongs to the errors. TPOT is what the client of a stream felt,
``(e2e − ttft) / (tokens − 1)``, else the engine's decode time over the same tokens (vLLM's own definition).
"""


def signal_of(name: str) -> Signal:
    """The signal of that name.

    Raises:
        WindowError: There is no such latency; the message lists those there are.
    """
    try:
        return SIGNALS[name]
    except KeyError:
        raise WindowError(f"There is no latency {name!r}", f"Use one of {', '.join(get_args(LatencySignal))}") from None


PHASES: Final = (
    "edge",
    "transit",
    "queue",
    "stall",
    "prefill",
    "decode",
    "compute_input",
    "compute_infer",
    "compute_output",
    "frontend",
)
"""Phases in the order in which a request meets them; the column of each is ``<phase>_seconds``."""
