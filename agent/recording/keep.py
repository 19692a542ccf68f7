"""Makes a recording of what the black box holds: the last minutes, as ``servescope replay`` reads them."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Final

import click
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.engine_table import detect
from agent.pages.page import PageReader
from agent.recording.folder import RecordingError
from agent.recording.ring import RING, pages_in, segments_in, take
from agent.recording.writing import Recorded, Writing, sort_logs, sort_metrics, sort_traces, texts, whole
from agent.spool.framing import is_checked, split_records
from base.errors import ServescopeError
from base.logs import log_to_stderr
from base.vocabulary import SERVICE_TAP, Resource

KEPT: Final = "recordings"
"""Folder below the data folder in which recordings are kept that nobody named."""
_PREFIX: Final = "black-box-"
_NICE: Final = 10
MOST_KEPT: Final = 10
"""Recordings that nobody named; of more the oldest go."""


def keep(data: Path, out: Path) -> list[Recorded]:
    """Write what the black box holds into a folder, a folder for each server in it.

    Args:
        data: The agent's data folder; the agent may be running, or gone.
        out: Folder to make.

    Returns:
        What was written, a folder for each server; empty where the black box is.

    Raises:
        RecordingError: The folder is not empty, or can't be written.
    """
    writers, ring = _Writers(out), data / RING
    try:
        if ring.is_dir():
            take(data / "spool", ring)  # what is newer than the ring's last turn
        times = _pages(ring, writers)
        for path in segments_in(ring, "metrics"):
            body = _body(path)
            _identify(body, writers)
            sort_metrics(body, writers)
        for path in segments_in(ring, "traces"):
            sort_traces(_body(path), writers, at_ends=True)
        for path in segments_in(ring, "logs"):
            sort_logs(_body(path), writers, at_ends=True)
        for one in writers.values():
            one.started, one.ended = min(times, default=one.started), max(times, default=0.0)
            one.close()
    except OSError as error:
        raise RecordingError(f"{out} can't be written: {error}", "Check space and permissions") from error
    return [Recorded(one.folder, one.instance, whole(one.counts)) for one in writers.values()]


class _Writers(dict[str, Writing]):
    """A folder for each server, made when it is first asked for by ``of``."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def of(self, instance: str) -> Writing:
        if instance not in self:
            taken = {one.folder.name for one in self.values()}
            names = chain([name := _as_folder(instance)], (f"{name}-{number}" for number in count(2)))
            self[instance] = Writing(self._out / next(each for each in names if each not in taken), instance)
        return self[instance]


def _pages(ring: Path, writers: _Writers) -> list[float]:
    """Write the pages; when they were asked for."""
    times = []
    for instance, row in pages_in(ring):
        one = writers.of(instance)
        one.add_page(row)
        times.append(float(row["t"]))
        if not one.engine and row.get("text"):
            one.engine = _engine(str(row["text"]))
    return times


def _identify(body: bytes, writers: _Writers) -> None:
    """Note whose the metrics of a body are."""
    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        whose = texts(group.resource.attributes)
        instance = whose.get(Resource.INSTANCE, "")
        if instance and whose.get(Resource.DEPLOYMENT) != SERVICE_TAP:  # what a tap counts of itself is no server's
            one = writers.of(instance)
            one.deployment = one.deployment or whose.get(Resource.DEPLOYMENT, "")
            one.version = whose.get(Resource.VERSION, "") or one.version


def keep_unnamed(data: Path, why: str) -> Path | None:
    """Keep what a data folder's black box holds among its recordings, of which the oldest go.

    Args:
        data: The data folder.
        why: Ends the name: an event, or an incident's id.

    Returns:
        The recording's folder; None where there is nothing to keep.

    Raises:
        RecordingError: It can't be written.
    """
    name = f"{_PREFIX}{datetime.now(UTC):%Y%m%d-%H%M%S}-{_as_folder(why)}"
    out = data / KEPT / name
    unfinished = out.with_name(f".{name}")
    try:
        if not keep(data, unfinished):
            return None
        unfinished.rename(out)
        _let_go(data / KEPT)
    except OSError as error:
        raise RecordingError(f"{out} can't be written: {error}", "Check space and permissions") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _let_go(folder: Path) -> None:
    kept = [path for path in folder.iterdir() if path.name.startswith(_PREFIX)]
    for path in sorted(kept, key=lambda one: one.stat().st_mtime_ns)[:-MOST_KEPT]:
        shutil.rmtree(path)


def _body(path: Path) -> bytes:
    try:
        return split_records(path.read_bytes(), 0, None, checked=is_checked(path.name)).body
    except FileNotFoundError:
        return b""  # grew old meanwhile


def _engine(text: str) -> str:
    try:
        return detect(PageReader().read(text.encode())).engine
    except ServescopeError:
        return ""  # of no engine that is known


def _as_folder(name: str) -> str:
    kept = "".join(char if char.isalnum() or char in "._-" else "_" for char in name).strip(".")
    return kept[:100] or "server"


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("why")
def main(data: Path, why: str) -> None:
    """Keep what the black box of DATA holds; prints the recording's folder."""
    log_to_stderr()
    os.nice(_NICE)
    try:
        kept = keep_unnamed(data, why)
    except ServescopeError as error:
        click.echo(f"keep: {error}", err=True)
        sys.exit(1)
    if kept is not None:
        click.echo(kept)


if __name__ == "__main__":
    main()
