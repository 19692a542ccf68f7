"""Ratios as people write them: a share, and a percentage that was meant as one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _share(value: float) -> float:
    if 0 < value < 1:
        return value
    percent = f": write {value / 100:.10g} for {value:g} %" if 1 < value < 100 else ""  # noqa: PLR2004 percent
    raise ValueError(f"must be a share, above 0 and below 1{percent}")


def _share_or_none(value: float) -> float:
    return value if value == 0 else _share(value)


Share = Annotated[float, AfterValidator(_share)]
ShareOrNone = Annotated[float, AfterValidator(_share_or_none)]
