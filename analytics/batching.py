"""How much work shares one engine step or one execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.ground import Reader
    from analytics.shapes import Line


@dataclass(frozen=True, slots=True)
class Batching:
    """Batches over time; lists are per instance and model, named ``instance · model``, busiest first.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        running: Requests in the engine, mean per step, one line each.
        tokens_per_step: Tokens of an average engine step (vLLM).
        steps_per_second: Engine steps per second (vLLM).
        inferences_per_execution: Mean batch size (Triton: items over executions).
        executions_per_second: Executions per second (Triton).
        mean_batch_size: Items over executions of the window, all of the selection; None without such a server.
        mean_tokens_per_step: Tokens over engine steps of the window; None without such a server.
    """

    step: int
    times: list[datetime]
    running: list[Line]
    tokens_per_step: list[Line]
    steps_per_second: list[Line]
    inferences_per_execution: list[Line]
    executions_per_second: list[Line]
    mean_batch_size: float | None
    mean_tokens_per_step: float | None


def dynamics(store: Reader, window: Window, filter: Filter = Filter(), *, points: int = 120) -> Answer[Batching]:  # noqa: A002, B008
    """Running requests, tokens per engine step and items per execution, per step."""
    raise NotImplementedError
