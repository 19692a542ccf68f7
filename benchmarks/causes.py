"""Whether ``servescope causes`` names what was done to recorded servers, and is silent where nothing was.

Recordings of real servers with one fault each (a folder a run, with a ``truth.json``: ``kind``, ``fault_start``,
``fault_end``, ``timeline_start``, ``timeline_end``; ``benchmarks.faults`` makes such) are replayed into a store of
their own. Asked is each fault's window, for the cause and for the tenant that appears with the fault alone; and quiet
windows, cut out of what lies before each fault and out of runs without one. Where a run without the fault has the
same arrivals, what is charged is held against what these took longer. What is in ``truth.json``, what clients saw and
their column ``role`` are what the answers are held against, never an input. Where no second was lost, since what was
done made requests fail at once, what the failures began with is the answer; in a quiet window it is a claim.

    python -m benchmarks.causes RUNS [--pages] [--json]

With ``--pages`` the servers' metrics pages and machines are all that is replayed: no request is known one by one, and
no tenant.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.recording.replay import replay
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from collector.store.address import locate
from collector.store.client import Store
from servescope.launch import borrowed

if TYPE_CHECKING:
    from collections.abc import Iterator

RIGHT_GOAL: Final = 0.9
QUIET_GOAL: Final = 0.95
_NOT_PAGES: Final = ("otlp", "client.jsonl.gz", "requests.jsonl.gz", "truth.json")
CLIENTS: Final = "clients.jsonl.gz"
"""What the clients of ``benchmarks.faults`` saw; `Run.twin` is that of a run with the same arrivals and no fault."""
SUM_GOAL: Final = 0.2
LENGTHS: Final = (8.0, 12.0, 20.0)
"""Seconds of quiet windows; they overlap by half."""
CAUSE_OF: Final = {
    "kv_exhaustion": "kv_cache_full",
    "client_aborts": "slow_client",
    "cpu_starvation": "cpu_starved",
    "long_prompts": "prefill_interference",
    "server_restart": "restart",
    "cache_busting": "cold_prefix_cache",
    "slow_replica": "slow_instance",
}
"""What a kind of fault is called as a cause; others have the same name. Readers that are slow come with the aborts."""


@dataclass(frozen=True, slots=True)
class Run:
    """One recording and what was done to it."""

    name: str
    kind: str
    start: float
    end: float
    fault: tuple[float, float] | None
    tenant: str
    cause: str
    instances: tuple[str, ...]
    also: str = ""
    twin: Path | None = None
    injected: float = 0.0

    @property
    def quiet(self) -> tuple[float, float]:
        """Where nothing was done; what follows a fault is its recovery and not counted as quiet."""
        return self.start, self.fault[0] if self.fault else self.end


def runs_of(folder: Path) -> list[Run]:
    """The runs in a folder, by name."""
    found = []
    for path in sorted(folder.glob("*/truth.json")):
        truth = json.loads(path.read_text())
        fault = (float(truth["fault_start"]), float(truth["fault_end"])) if truth.get("fault_start") else None
        found.append(
            Run(
                path.parent.name,
                str(truth["kind"]),
                float(truth["timeline_start"]),
                float(truth["timeline_end"]),
                fault,
                str(truth["tenant"]) if "tenant" in truth else _newcomer(path.parent / "client.jsonl.gz"),
                str(truth["cause"]) if "tenant" in truth else CAUSE_OF.get(truth["kind"], truth["kind"]),
                tuple(truth.get("instances", (path.parent.name,))),
                str(truth.get("also", "")),
                twin if "twin" in truth and (twin := folder / truth["twin"] / CLIENTS).exists() else None,
                float(truth.get("fault_injection_end") or 0.0),
            )
        )
    return found


def _newcomer(path: Path) -> str:
    """The one tenant that is there with the fault alone; none where it is of all or none."""
    if not path.exists():
        return ""
    seen: dict[str, set[str]] = {"baseline": set(), "fault": set()}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            seen.setdefault(str(row.get("role")), set()).add(str(row.get("tenant")))
    new = seen["fault"] - seen["baseline"]
    return new.pop() if len(new) == 1 else ""


def windows(first: float, last: float) -> Iterator[tuple[float, float]]:
    """Windows of all `LENGTHS` in a span, overlapping by half; the first starts where something lies before it."""
    for length in LENGTHS:
        at = first
        while at + length <= last:
            yield at, at + length
            at += length / 2


def figure(name: str, right: int, of: int, goal: float, *, reference: str = "") -> dict[str, Any]:
    """One figure: a share; higher is better."""
    share = right / of if of else None
    return {
        "name": name,
        "value": None if share is None else round(share, 4),
        "unit": "share",
        "reference": reference or f"{of} asked",
        "reference_value": float(of),
        "ratio": None,
        "goal": goal,
        "met": None if share is None else share >= goal,
    }


def measure(folder: Path, *, pages: bool = False) -> list[dict[str, Any]]:
    """Replay, ask, compare."""
    runs = runs_of(folder)
    right = named = tenants = twofold = both = 0
    quiet: list[bool] = []
    claimed: Counter[str] = Counter()
    slowest = lost = charged = 0.0
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        with borrowed.collector(data, "", _say) as (otlp, keys):
            for run in runs:
                given = folder / run.name
                if pages:
                    given = data / "pages" / run.name
                    shutil.copytree(folder / run.name, given, ignore=shutil.ignore_patterns(*_NOT_PAGES))
                asyncio.run(replay(given, otlp, keys=keys))
        with borrowed.store(data, "", _say) as url, Store(locate(data, url, role="reader")) as store:
            for run in runs:
                if run.fault:
                    begun = time.monotonic()
                    answer = _ask(store, run, *run.fault)
                    found = answer.causes
                    slowest = max(slowest, time.monotonic() - begun)
                    wanted = run.cause
                    named_first = found[0].cause if found else begun_with(answer)
                    right += named_first in {wanted, run.also} - {""}
                    if run.also:
                        twofold += 1
                        both += {wanted, run.also} <= {one.cause for one in found}
                    if run.tenant and not pages and wanted != "slow_client":
                        named += 1
                        # of one fault the first cause, of two the fault's own
                        whose = [one.who.get("tenant") for one in found if one.cause == wanted or not run.also]
                        tenants += whose[:1] == [run.tenant]
                    if run.twin is not None and not pages:
                        cost = _lost(folder / run.name / CLIENTS, run.twin, run.fault[0] - run.start)
                        mine = sum(one.seconds for one in _ask(store, run, *run.fault, tenants=cost[1]).causes)
                        lost, charged = lost + cost[0], charged + mine
                        _say(f"{run.name}: cost those who were there anyway {cost[0]:.1f} s, charged {mine:.1f} s")
                    told = ", ".join(f"{one.cause} {one.share:.0%} {one.who}" for one in found[:3])
                    told = told or (f"failures that began with {named_first}" if named_first else "nothing")
                    _say(f"{run.name}: wanted {wanted} {run.also} {run.tenant}; told {told}")
                for first, last in windows(*run.quiet):
                    answer = _ask(store, run, first, last)
                    claims = [one.cause for one in answer.causes] + ([since] if (since := begun_with(answer)) else [])
                    quiet.append(not claims)
                    claimed.update(claims)
    _say(f"claimed in {quiet.count(False)} of {len(quiet)} quiet windows: {dict(claimed)}")
    faults = sum(run.fault is not None for run in runs)
    return [
        figure("cause_first_right", right, faults, RIGHT_GOAL),
        figure("tenant_right", tenants, named, RIGHT_GOAL),
        figure("both_of_two_named", both, twofold, RIGHT_GOAL),
        figure("quiet_windows_silent", sum(quiet), len(quiet), QUIET_GOAL),
        {
            "name": "charged_off_by",
            "value": round(abs(charged / lost - 1), 4) if lost else None,
            "unit": "share",
            "reference": "seconds that the same arrivals took longer than without the fault",
            "reference_value": round(lost, 3),
            "ratio": round(charged / lost, 4) if lost else None,
            "goal": SUM_GOAL,
            "met": abs(charged / lost - 1) <= SUM_GOAL if lost else None,
        },
        {
            "name": "causes_of_a_window",
            "value": round(slowest, 3),
            "unit": "s",
            "reference": "none",
            "reference_value": None,
            "ratio": None,
            "goal": 1.0,
            "met": slowest <= 1.0,
        },
    ]


def _lost(path: Path, twin: Path, since: float) -> tuple[float, tuple[str, ...]]:
    """Seconds that steady requests took longer than the same in another run, and whose they are.

    Args:
        path: What the clients of the run saw.
        twin: Of the run without the fault.
        since: Where the fault begins, seconds from the beginning of the timeline.
    """
    took: list[dict[tuple[float, str], float]] = []
    for each in (path, twin):
        with gzip.open(each, "rt") as lines:
            rows = [json.loads(line) for line in lines]
        took.append({
            (row["at"], row["tenant"]): row["e2e"] for row in rows if row["role"] == "baseline" and row["at"] >= since
        })  # fmt: skip
    both = took[0].keys() & took[1].keys()
    return sum(took[0][key] - took[1][key] for key in both), tuple(sorted({tenant for _, tenant in both}))


def _ask(store: Store, run: Run, first: float, last: float, *, tenants: tuple[str, ...] = ()) -> Any:
    window = Window(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC))
    return causes.ask(store, Selection(window, Filter(instance=run.instances, tenant=tenants))).result


def begun_with(answer: Any) -> str:
    """What most of the failures began with that began with something; "" where none did."""
    told = [failure for failure in answer.failures if failure.onset is not None]
    return str(max(told, key=lambda one: one.requests).onset.event) if told else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--pages", action="store_true", help="know the servers' pages alone")
    parser.add_argument("--json", action="store_true", help="figures are JSON in any case")
    given = parser.parse_args()
    for made in measure(given.runs, pages=given.pages):
        print(json.dumps(made))


if __name__ == "__main__":
    main()
