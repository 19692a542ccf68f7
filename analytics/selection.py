"""What of a window is looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from analytics.window import WindowError

FILTER_COLUMNS: Final = ("model", "tenant", "instance", "deployment", "engine", "region", "version")


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the window is looked at: every field is a set of accepted values, empty for all.

    Engine samples know no tenant: a question that reads them under a tenant filter says so in its notes.

    Args:
        model: Model names.
        tenant: Tenants, as stored.
        instance: Instances.
        deployment: Deployments.
        engine: Engine ids (``vllm``, ``triton``, …).
        region: Regions.
        version: Versions of model or server.
        recording: ``include`` replayed rows, ``exclude`` them, or look at them ``only``.
    """

    model: tuple[str, ...] = ()
    tenant: tuple[str, ...] = ()
    instance: tuple[str, ...] = ()
    deployment: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    recording: Literal["include", "exclude", "only"] = "include"

    def __post_init__(self) -> None:
        for name in FILTER_COLUMNS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise WindowError(f"The filter {name} is {value!r}", f"Give a list: {name}=({value!r},)")
            object.__setattr__(self, name, tuple(value))
        if self.recording not in {"include", "exclude", "only"}:
            raise WindowError(f"The filter recording is {self.recording!r}", "Use include, exclude or only")

    def chosen(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The columns that are narrowed, with their accepted values."""
        for name in FILTER_COLUMNS:
            if value := getattr(self, name):
                yield name, value

    def narrowed(self, **columns: tuple[str, ...]) -> Filter:
        """This filter with some columns replaced."""
        return dataclasses.replace(self, **columns)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """All columns as lists, and ``recording``."""
        return {**{name: list(getattr(self, name)) for name in FILTER_COLUMNS}, "recording": self.recording}
