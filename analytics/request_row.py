"""One row of ``requests`` as Python sees it, for lists and for one request's story."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime  # noqa: TC003 - the types of the fields are read at run time
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from analytics.signals import PHASES, SIGNALS
from analytics.values import moment, number

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request. Texts are empty and durations None where nobody measured; token counts are 0 then.

    Attributes:
        key: Request key, with ``time`` the primary key of ``requests``; a decimal string, as it needs 64 bits.
        time: Arrival.
        outcome: As `base.vocabulary.Outcome`; empty when only the engine saw the request.
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
    frontend_seconds: float | None
    transit_seconds: float | None
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

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RequestRow:
        """From a row of a statement that selects `COLUMNS`."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = row.get(item.name)
            if item.name == "key":
                values["key"] = str(value)
            elif item.name == "time":
                values["time"] = moment(row["time_ms"])
            elif item.name in _TEXTS:
                values[item.name] = str(value)
            elif item.name in _FLAGS:
                values[item.name] = bool(value)
            elif item.name in _COUNTS:
                values[item.name] = int(str(value))
            else:
                values[item.name] = number(row[item.name.removesuffix("seconds") + "s"])
        return cls(**values)


def _columns(kind: type) -> tuple[str, ...]:
    """Fields of that very type, which are columns as they are."""
    hints = get_type_hints(RequestRow)
    return tuple(item.name for item in fields(RequestRow) if hints[item.name] is kind and item.name != "key")


_TEXTS: Final = _columns(str)
_FLAGS: Final = _columns(bool)
_COUNTS: Final = _columns(int)
_LLM: Final = ("prefill", "decode", "stall")
_COMPUTE: Final = ("compute_input", "compute_infer", "compute_output")
_PRESENT: Final = {
    "edge": "has_edge = 1",
    "transit": "has_edge = 1 AND has_engine = 1",
    "queue": "has_engine = 1",
    "frontend": "has_engine = 1",
    **dict.fromkeys(_LLM, "has_engine = 1 AND prefill_seconds > 0"),
    **dict.fromkeys(
        ("compute_input", "compute_infer", "compute_output"), "has_engine = 1 AND compute_infer_seconds > 0"
    ),
}
_POSITIVE: Final = (
    *("ttft_seconds", "e2e_seconds", "engine_ttft_seconds", "engine_e2e_seconds"),
    *("itl_mean_seconds", "itl_p99_seconds", "itl_max_seconds"),
)
_MEASURED: Final = " - ".join(f"toFloat64({phase}_seconds)" for phase in PHASES)
_TPOT: Final = SIGNALS["tpot_seconds"]
COLUMNS: Final = ",\n    ".join(
    (
        "key",
        "toUnixTimestamp64Milli(time) AS time_ms",
        *_TEXTS,
        *_FLAGS,
        *_COUNTS,
        *(f"if({test}, toFloat64({phase}_seconds), NULL) AS {phase}_s" for phase, test in _PRESENT.items()),
        *(f"if({name} > 0, toFloat64({name}), NULL) AS {name[:-8]}_s" for name in _POSITIVE),
        f"if({_TPOT.present}, toFloat64({_TPOT.value}), NULL) AS tpot_s",
        f"if(e2e_seconds > 0, toFloat64(e2e_seconds) - {_MEASURED}, NULL) AS unaccounted_s",
    )
)
"""What a statement over ``requests`` selects for `RequestRow.of`; durations come as ``<name>_s``, NULL = not measured.

They are renamed because ClickHouse lets an alias shadow the column in the rest of the statement."""
