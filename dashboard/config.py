"""Settings of the dashboard."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from base.settings import Port
from base.urls import Host  # noqa: TC001 - pydantic reads it at run time

SWIFTEST_REFRESH: Final = 2.0
SLOWEST_REFRESH: Final = 300.0


class DashboardConfig(BaseModel):
    """Section ``dashboard`` of ``servescope.yaml``.

    Attributes:
        host: Address to listen on.
        port: Port.
        refresh_seconds: How often a live page asks again.
        recordings: Whether pages begin with replayed rows among the live ones; each page has a choice of its own.
    """

    model_config = ConfigDict(extra="forbid")

    host: Host = "127.0.0.1"
    port: Annotated[int, Port("dashboard")] = Field(default=8501, ge=1, le=65535)
    refresh_seconds: float = Field(default=5.0, ge=SWIFTEST_REFRESH, le=SLOWEST_REFRESH)
    recordings: Literal["exclude", "include"] = "exclude"
