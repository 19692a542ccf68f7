"""What a request costs when little comes: CPU by process at 3, 30 and 300 requests a second and at full rate, and idle.

``servescope up`` runs as users run it, beside a scripted server that answers at once; open-loop traffic goes through
its tap, half of it streams. Once more at 30 a second while somebody reads every five seconds, as a page that refreshes
does: what nobody reads is held back (``collector.unasked_seal_seconds``). Full rate: the same edge records, as many as
the collector takes, signed and packed as an agent sends them. Everything below one ``servescope up`` is counted, from a
state of rest to where nothing waits. Reference of a rate is the full rate of the same run. Of the idle figure it is the
bare engine's spans per CPU-second (``benchmarks.ingest``), by which the goal grows on a slower machine. Run as
``python -m benchmarks.steady [--quick] [--only idle]``.

What nobody reads comes in at intervals, so a window lasts a whole number of them: one that held an insert or two as
chance has it would not be a figure. Rates begin where nobody has read for a while, and the last insert of a window is
the one that its end brings in.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.gathering import UNREAD_SECONDS
from base.keys import ensure_keys
from benchmarks import idle, ingest, tap
from collector.config import CollectorConfig
from collector.store.address import locate
from collector.store.client import Store
from collector.writing.pace import FEW_SAMPLES_TIMES, SILENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection

RATES: Final = (3, 30, 300)
RATIO_GOAL: Final = 20.0
IDLE_GOAL: Final = 0.04
IDLE_GOAL_SPEED: Final = 15_000.0
"""Spans per CPU-second of the bare engine on the machine that the goal in cores is meant for."""
ASKED_RATE: Final = 30
READ_EVERY_SECONDS: Final = 5.0
ENGINE: Final = ("collector.embedded", "collector")
"""The processes by which a rate is judged."""
_HELD_SECONDS: Final = float(CollectorConfig().unasked_seal_seconds)
_RATE_SECONDS: Final = 2 * _HELD_SECONDS - 1.0
"""Two inserts of spans, of which the end brings in the second."""
_IDLE_SECONDS: Final = FEW_SAMPLES_TIMES * _HELD_SECONDS
"""One insert of each signal that comes at rest."""
_REST_SECONDS: Final = SILENCE_SECONDS + 5.0
_GATHER_SECONDS: Final = UNREAD_SECONDS + 0.5
"""Until an agent has sent the last of them."""
_FULL_BODIES: Final = 400
PARTS: Final = ("idle", *(str(rate) for rate in RATES), "asked")


def measure(*, quick: bool, only: Collection[str] = PARTS) -> list[dict[str, object]]:
    """The figures of this benchmark.

    Args:
        quick: Twenty seconds a figure: how many inserts that holds is chance.
        only: Those of ``PARTS`` that are wanted; the full rate is measured for all but ``idle``.

    Raises:
        ClickException: Servescope did not start.
        RuntimeError: Something did not come to rest, or requests failed.
    """
    with tempfile.TemporaryDirectory(prefix="servescope-steady-") as name:
        folder = Path(name)
        bare = _bare(folder / "bare", quick=quick) if "idle" in only else 0.0
        base = idle.free_block()
        data = folder / "data"
        with tap.child(tap.serve, base + 30):
            asyncio.run(tap.wait_for_port(base + 30))
            up = idle.start(
                "servescope", "up", "--data", str(data), "--port-base", str(base),
                "--target", f"stub=http://127.0.0.1:{base + 30}",
            )  # fmt: skip
            try:
                idle.until_running(up, data)
                run = _Run(up.pid, data)
                at_rest = run.idle(20.0 if quick else _IDLE_SECONDS) if "idle" in only else None
                seconds = 20.0 if quick else _RATE_SECONDS
                steady = {rate: run.steady(rate, seconds) for rate in RATES if str(rate) in only}
                asked = run.steady(ASKED_RATE, seconds, READ_EVERY_SECONDS) if "asked" in only else None
                full = run.full(50 if quick else _FULL_BODIES) if set(only) - {"idle"} else {}
            finally:
                up.send_signal(signal.SIGINT)
                up.wait(120)
    figures = [_steady_figure(f"steady_{rate}", rate, used, full) for rate, used in steady.items()]
    if asked is not None:
        figures.append(_steady_figure(f"steady_{ASKED_RATE}_asked", ASKED_RATE, asked, full))
    if at_rest is not None:
        figures.append(_idle_figure(at_rest, bare))
    return figures


class _Run:
    """A ``servescope up`` that runs.

    Args:
        pid: Its process.
        data: Its data folder.
    """

    def __init__(self, pid: int, data: Path) -> None:
        urls = json.loads((data / "run.json").read_text())["urls"]
        self._pid = pid
        self._data = data
        self._collector = str(urls["otlp"])
        self._store = str(urls["store"])
        (tapped,) = urls["taps"].values()
        self._tap = urlsplit(str(tapped)).port or 0

    def idle(self, seconds: float) -> dict[str, float]:
        """Cores by process, once the start is over."""
        time.sleep(_REST_SECONDS)
        before, begun = idle.cpu_by_part(self._pid), time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - begun
        after = idle.cpu_by_part(self._pid)
        self._alive(after)
        return {part: (used - before.get(part, 0.0)) / lasted for part, used in after.items()}

    def steady(self, rate: int, seconds: float, read_every: float = 0.0) -> dict[str, float]:
        """CPU seconds of a thousand requests at a rate, by process, idling included.

        Args:
            rate: Requests a second.
            seconds: For how long.
            read_every: Seconds from one reader's question to the next; 0 for no reader.
        """
        load = tap.Load(self._tap)

        async def reading() -> None:
            while read_every:
                await asyncio.sleep(read_every)
                await asyncio.to_thread(self._read)

        async def traffic() -> None:
            reader = asyncio.create_task(reading())
            await load.block(seconds, rate)
            load.close()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

        time.sleep(_REST_SECONDS)
        before = idle.cpu_by_part(self._pid)
        asyncio.run(traffic())
        self._rest()
        used = idle.cpu_by_part(self._pid)
        self._alive(used)
        answered = len(load.seen.first) + len(load.seen.whole)
        if load.seen.failed or not answered:
            raise RuntimeError(f"{load.seen.failed} requests failed at {rate} a second, {answered} were answered")
        return {part: (cpu - before.get(part, 0.0)) / answered * 1000 for part, cpu in used.items()}

    def full(self, count: int) -> dict[str, float]:
        """The same for edge records as fast as the collector takes them."""
        bodies = [_edges() for _ in range(count)]
        key = ensure_keys(self._data / "keys").agent_hmac
        before = idle.cpu_by_part(self._pid)
        asyncio.run(ingest.send(self._collector, key, bodies))
        self._rest()
        used = idle.cpu_by_part(self._pid)
        sent = count * ingest.REQUESTS_A_BODY
        return {part: (seconds - before.get(part, 0.0)) / sent * 1000 for part, seconds in used.items()}

    def _alive(self, parts: dict[str, float]) -> None:
        if missing := [part for part in ENGINE if part not in parts]:
            raise RuntimeError(f"{' and '.join(missing)} ended; run servescope up by hand to see why")

    def _read(self, *more: str) -> None:
        with Store(locate(self._data, self._store)) as store:
            for table in ("requests", *more):
                store.rows(f"SELECT count() AS n FROM {table} WHERE time > now() - INTERVAL 1 MINUTE")  # noqa: S608

    def _rest(self) -> None:
        time.sleep(_GATHER_SECONDS)
        self._read("host_samples")  # what is held back is brought in, of every signal
        # samples never cease
        ingest.until(lambda: ingest.drained(self._collector, ("traces",)), "the log to drain")
        with Store(locate(self._data, self._store, role="owner")) as store:
            ingest.until(lambda: not store.rows("SELECT 1 FROM system.merges LIMIT 1"), "merges")


def _bare(folder: Path, *, quick: bool) -> float:
    folder.mkdir()
    bodies = [ingest.Bodies().make() for _ in range(30 if quick else 150)]
    return len(bodies) * 2 * ingest.REQUESTS_A_BODY / ingest.run_bare(folder, bodies)


def _edges() -> bytes:
    body = ExportTraceServiceRequest.FromString(ingest.Bodies().make())
    del body.resource_spans[1]
    return body.SerializeToString()


def _told(parts: dict[str, float]) -> str:
    return ", ".join(f"{part} {share:.4g}" for part, share in sorted(parts.items(), key=lambda item: -item[1]))


def _steady_figure(name: str, rate: int, used: dict[str, float], full: dict[str, float]) -> dict[str, object]:
    click.echo(f"{name}, CPU-s per 1,000 requests: {_told(used)}", err=True)
    value, reference = (sum(of.get(part, 0.0) for part in ENGINE) for of in (used, full))
    ratio = value / reference
    judged = rate == 30  # noqa: PLR2004 - the rate that the goal is for
    return {
        "name": name, "value": round(value, 4), "unit": "CPU-s/1,000 requests, store and collector",
        "reference": "the same at full rate", "reference_value": round(reference, 4), "ratio": round(ratio, 2),
        "goal": RATIO_GOAL if judged else None, "met": ratio <= RATIO_GOAL if judged else None,
    }  # fmt: skip


def _idle_figure(cores: dict[str, float], bare: float) -> dict[str, object]:
    click.echo(f"idle, cores: {_told(cores)}", err=True)
    value, goal = sum(cores.values()), IDLE_GOAL * IDLE_GOAL_SPEED / bare
    return {
        "name": "steady_idle", "value": round(value, 4), "unit": "cores",
        "reference": "the bare engine's spans per CPU-second", "reference_value": round(bare),
        "ratio": round(value * bare / IDLE_GOAL_SPEED, 4), "goal": round(goal, 4), "met": value <= goal,
    }  # fmt: skip


@click.command()
@click.option("--quick", is_flag=True, help="Twenty seconds a figure.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure this figure; may be given again.")
@click.option("--json", "_as_json", is_flag=True, help="JSON lines, as always.")
def main(quick: bool, only: tuple[str, ...], _as_json: bool) -> None:
    """Print one JSON object a figure."""
    for figure in measure(quick=quick, only=only or PARTS):
        click.echo(json.dumps(figure))


if __name__ == "__main__":
    main()
