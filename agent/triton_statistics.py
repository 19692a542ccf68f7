"""Triton's statistics of its models, as it answers at ``/v2/models/stats``; loaded where a Triton is asked for them.

Fields: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

from pydantic import BaseModel, Field


class Spent(BaseModel):
    """How often something was done, and the ns that it took."""

    count: int = Field(ge=0)
    ns: int = Field(ge=0)


class Batch(BaseModel):
    """Executions of one size since the server's start."""

    batch_size: int = Field(ge=1)
    compute_input: Spent
    compute_infer: Spent
    compute_output: Spent


class Model(BaseModel):
    """One version of a model."""

    name: str
    version: str = ""
    batch_stats: list[Batch] = []


class Reply(BaseModel):
    """The whole answer."""

    model_stats: list[Model]
