"""A tap's own metrics as a file beside its open requests: its agent shows those of all taps that share its spool.

Under ``servescope up`` and in a pod nobody knows a port of a tap's own, and a process that drains beside its successor
could not have the same one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent.tap.open_requests import living

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import CollectorRegistry

PAGE: Final = "metrics"
_CREATED: Final = "_created"

log = structlog.get_logger()


class Page:
    """Writes the metrics of this process.

    Args:
        folder: What the process has below ``DIR/spool/<producer>/open``; None writes nothing.
        registry: Its metrics.
        instance: The server that it stands before.
    """

    def __init__(self, folder: Path | None, registry: CollectorRegistry, instance: str) -> None:
        self._folder, self._registry = folder, registry
        self._whose = {"instance": instance, "pid": str(os.getpid())}

    def collect(self) -> Iterator[Metric]:
        """The metrics, each with whose it is (the custom-collector protocol of prometheus_client)."""
        for family in self._registry.collect():
            named = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                if not sample.name.endswith(_CREATED):
                    named.samples.append(sample._replace(labels=self._whose | sample.labels))
            yield named

    def write(self) -> None:
        """Write them anew; that they can't be written is said in the log."""
        if self._folder is None:
            return
        unfinished = self._folder / f".{PAGE}"
        try:
            unfinished.write_bytes(generate_latest(self))
            unfinished.replace(self._folder / PAGE)
        except OSError as error:
            log.warning("tap_metrics_not_written", error=str(error))


def families(spool: Path) -> list[Metric]:
    """The metrics of all taps over a spool that live, each family once; up to half a minute old."""
    found: dict[str, Metric] = {}
    for folder in living(spool):
        try:
            told = list(text_string_to_metric_families((folder / PAGE).read_text()))
        except FileNotFoundError:  # it has only just begun, or has ended
            continue
        except (OSError, ValueError) as error:
            log.warning("tap_metrics_not_read", folder=str(folder), error=str(error))
            continue
        for family in told:
            merged = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += family.samples
    return list(found.values())
