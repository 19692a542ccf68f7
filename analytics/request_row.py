"""One row of ``requests`` as Python sees it, for lists and for one request's story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request. Texts are empty and durations None where nobody measured; token counts are 0 then.

    Attributes:
        key: Request key, with ``time`` the primary key of ``requests``; a decimal string, as it needs 64 bits.
        time: Arrival.
        outcome: As `agent.vocabulary.Outcome`; empty when only the engine saw the request.
        has_edge, has_engine: Which halves exist.
        tpot_seconds: Mean time per output token after the first.
        unaccounted_seconds: End-to-end time less all measured phases.
        Everything else: As the column of the same name.
    """

    key: str
    time: datetime
    trace_id: str
    request_id: str
    response_id: str
    tenant: str
    model: str
    engine: str
    instance: str
    deployment: str
    region: str
    version: str
    route: str
    stream: bool
    status: int
    outcome: str
    finish_reason: str
    error_type: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_counted: bool
    edge_seconds: float | None
    queue_seconds: float | None
    prefill_seconds: float | None
    decode_seconds: float | None
    stall_seconds: float | None
    compute_input_seconds: float | None
    compute_infer_seconds: float | None
    compute_output_seconds: float | None
    ttft_seconds: float | None
    e2e_seconds: float | None
    engine_ttft_seconds: float | None
    engine_e2e_seconds: float | None
    itl_mean_seconds: float | None
    itl_p99_seconds: float | None
    itl_max_seconds: float | None
    tpot_seconds: float | None
    unaccounted_seconds: float | None
    preemptions: int
    has_edge: bool
    has_engine: bool
    recording: str
