"""A simulated server that batches continuously, for tests of the account: mechanisms, not recordings.

One engine in steps: it admits while there are blocks, places and tokens left in the step, decodes one token of every
running sequence a step, and preempts the youngest when it runs out of blocks. A step takes
``alone + per sequence + per prompt token`` seconds, times a factor that a fault may set; nothing here knows of causes.
It may draft tokens, have slots for LoRA adapters, and wait for the KV cache of a prompt that was computed elsewhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from analytics.causes.steps import steps_of
from analytics.causes.table import Event, Evidence, Fault, Gpu, requests_of, samples_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from analytics.causes.steps import Steps

ORIGIN_MS = 1_700_000_000_000
PHASES = (
    *("edge", "transit", "frontend", "queue", "stall", "prefill", "decode"),
    *("compute_input", "compute_infer", "compute_output"),
)


@dataclass
class Ask:
    """One request as a client sends it, and what becomes of it."""

    at: float
    tenant: str
    prompt: int
    output: int
    cached: int = 0
    reads: float = 0.0
    instance: str = "sim-0"
    version: str = "1"
    adapter: str = ""
    outcome: str = "ok"
    started: float = -1.0
    first: float = -1.0
    last: float = -1.0
    made: int = 0
    preempted: int = 0
    gap: float = 0.0


@dataclass
class Server:
    """How the simulated engine is made and what is done to it.

    Args:
        accepts: Chance, at a time, that a drafted token is accepted; without, nothing is drafted.
        drafting: Share of a sequence's steps that have a draft.
        slots: LoRA adapters that run at one time; 0: it has none.
        reasons: Whether its page tells why requests wait.
        transfer: Seconds, at a time, until a prompt's KV cache is there; without, none is transferred.
        overlapped: Whether nobody waits for that.
    """

    name: str = "sim-0"
    blocks: int = 4000
    block: int = 16
    places: int = 256
    budget: int = 2048
    alone: float = 0.008
    sequence: float = 0.0001
    token: float = 0.00002
    slower: Callable[[float], float] = lambda _: 1.0
    stops: tuple[tuple[float, float], ...] = ()
    noise: float = 0.05
    accepts: Callable[[float], float] | None = None
    drafting: float = 1.0
    slots: int = 0
    reasons: bool = True
    transfer: Callable[[float], float] | None = None
    overlapped: bool = False
    held: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)

    def serve(  # noqa: C901, PLR0912 - one loop is what an engine is
        self, asks: Iterable[Ask], until: float, chance: random.Random
    ) -> None:
        """Runs the requests; fills ``samples`` with what a metrics page would say every second, ``steps`` with each."""
        before, left_open = 0.0, False
        coming, waiting, running = deque(sorted(asks, key=lambda one: one.at)), deque[Ask](), list[Ask]()
        now, sampled = 0.0, 1.0
        moved = dict.fromkeys(("generated", "progress", "preemptions"), 0.0)
        moved |= dict.fromkeys(("drafts", "accepted") if self.accepts else (), 0.0)
        moved |= dict.fromkeys(("transfers", "transfer_s") if self.transfer else (), 0.0)
        while now < until or waiting or running or coming:
            for since, stop in self.stops:
                if since <= now < stop:
                    sampled = self._sample(sampled, stop, running, waiting, moved)
                    now = stop
            while coming and coming[0].at <= now:
                waiting.append(coming.popleft())
            tokens, decoding = 0, [one for one in running if one.first >= 0]
            passed_over = []
            while waiting and len(running) < self.places and tokens < self.budget:
                one = waiting[0]
                if not self._admits(one, running, now):
                    passed_over.append(waiting.popleft())
                    continue
                if self.held + self._blocks(one) > self.blocks:
                    break
                self.held += self._blocks(one)
                running.append(waiting.popleft())
                tokens += max(one.prompt - one.cached, 1) + one.made
                if self.transfer and one.started < 0:
                    moved["transfers"] += 1
                    moved["transfer_s"] += self.transfer(one.at)
                one.started = now if one.started < 0 else one.started
            waiting.extendleft(reversed(passed_over))
            if not running:
                later = min(coming[0].at if coming else until + 1.0, now + 0.05)
                sampled = self._sample(sampled, later, running, waiting, moved)
                now = later
                if not coming and not waiting and now > until:
                    break
                continue
            took = (self.alone + self.sequence * len(decoding) + self.token * tokens) * self.slower(now)
            took *= chance.lognormvariate(0, self.noise)
            sampled = self._sample(sampled, now + took, running, waiting, moved)
            now += took
            told = dict(moved)
            moved["progress"] += tokens
            for one in running:
                gained = 1 if one.first < 0 else min(1 + self._accepted(now, moved, chance), one.output - one.made)
                if one.first < 0:
                    one.first = now
                one.gap = max(one.gap, now - one.last) if one.last >= 0 else one.gap
                self.held -= self._blocks(one)
                one.made, one.last = one.made + gained, now
                self.held += self._blocks(one) if one.made < one.output else 0
                moved["generated"] += gained
                moved["progress"] += gained
            step = {"done": now, "busy": now - before if left_open else took, "prefilled": float(tokens), "took": took}
            step |= {"decoded": float(len(decoding)), "waiting": float(len(waiting)), "preempted": 0.0}
            step |= {"kv": min(self.held / self.blocks, 1.0), "before": before if left_open else now}
            self.steps.append(step)
            running = [one for one in running if one.made < one.output]
            while self.held > self.blocks and len(running) > 1:
                loser = running.pop()
                self.held -= self._blocks(loser)
                loser.preempted += 1
                moved["preemptions"] += 1
                step["preempted"] += 1
                waiting.appendleft(loser)
            step["running"], step["waiting"] = float(len(running)), float(len(waiting))
            if self.accepts:
                step |= {name: moved[name] - told[name] for name in ("generated", "drafts", "accepted")}
            before, left_open = now, bool(running or waiting)

    def _admits(self, one: Ask, running: list[Ask], now: float) -> bool:
        """Whether nothing of its own keeps a request waiting: an adapter without a slot, its KV cache on the way."""
        if self.transfer and not self.overlapped and one.started < 0 and now < one.at + self.transfer(one.at):
            return False
        loaded = {other.adapter for other in running} - {""}
        return not (self.slots and one.adapter) or one.adapter in loaded or len(loaded) < self.slots

    def _accepted(self, now: float, moved: dict[str, float], chance: random.Random) -> int:
        """Tokens of a draft of three that a sequence keeps: those before the first that is not accepted."""
        if not self.accepts or (self.drafting < 1 and chance.random() >= self.drafting):
            return 0
        kept = next((place for place in range(3) if chance.random() >= self.accepts(now)), 3)
        moved["drafts"] += 1
        moved["accepted"] += kept
        return kept

    def _blocks(self, one: Ask) -> int:
        return -(-(one.prompt + one.made + 1) // self.block)

    def _sample(
        self, sampled: float, now: float, running: list[Ask], waiting: deque[Ask], moved: dict[str, float]
    ) -> float:
        while sampled <= now:
            loaded = {one.adapter for one in running} - {""}
            deferred = sum(not self._admits(one, running, sampled) for one in waiting)
            adapters = {one.adapter for one in waiting} - {""} - loaded
            shown = {"adapters_running": len(loaded), "adapters_held_back": len(adapters), "adapter_slots": self.slots}
            reasons = {"deferred": deferred, "capacity": len(waiting) - deferred}
            self.samples.append(
                {
                    "name": self.name,
                    "at_ms": ORIGIN_MS + sampled * 1000,
                    "interval": 1.0,
                    "up": 1.0,
                    "scrape": 0.005,
                    "running": float(len(running)),
                    "waiting": float(len(waiting)),
                    "kv": min(self.held / self.blocks, 1.0),
                    **moved,
                    **(shown if self.slots else {}),
                    **(reasons if self.reasons and (self.slots or self.transfer) else {}),
                    "deployment": "sim",
                }
            )
            moved.update(dict.fromkeys(moved, 0.0))
            sampled += 1.0
        return sampled


def traffic(chance: random.Random, since: float, until: float, rate: float, tenant: str, **shape: Any) -> list[Ask]:
    """Poisson arrivals of one tenant; ``prompt`` and ``output`` are ranges, ``cached`` a share of the prompt."""
    found, at = [], since
    prompt, output = shape.pop("prompt", (150, 300)), shape.pop("output", (20, 120))
    cached = shape.pop("cached", 0.5)
    while (at := at + chance.expovariate(rate)) < until:
        length = chance.randint(*prompt)
        found.append(Ask(at, tenant, length, chance.randint(*output), cached=int(length * cached), **shape))
    return found


def steady(chance: random.Random, until: float, rate: float = 8.0, instance: str = "sim-0") -> list[Ask]:
    """What comes all the time: two tenants alike, one with longer outputs."""
    found = traffic(chance, 0, until, rate * 0.4, "acme", instance=instance)
    found += traffic(chance, 0, until, rate * 0.4, "globex", instance=instance)
    return found + traffic(chance, 0, until, rate * 0.2, "initech", output=(150, 250), instance=instance)


def gpu(
    name: str,
    until: float,
    clock: Callable[[float], float] = lambda _: 1.0,
    reasons: int = 64,
    faults: Iterable[float] = (),
) -> Gpu:
    """A GPU as samples of every second tell of it.

    Args:
        name: Its UUID.
        until: Seconds for which it is sampled.
        clock: Share of 2 GHz that it runs at; where that is less, it says why.
        reasons: NVML's bits that it says.
        faults: Seconds in which the driver tells an Xid.
    """
    time = np.arange(1.0, until + 1)
    share = np.array([clock(at - 0.5) for at in time])
    slowed = (share < 1).astype(float) * bool(reasons)
    found = Gpu(name, "H100", f"GPU {name[-1]} of n1", time, slowed, slowed * reasons, share * 2e9)
    found.faults = [Fault(at, name, f"Xid 79 on {name}") for at in faults]
    return found


def evidence(
    servers: Iterable[Server],
    asks: Iterable[Ask],
    since: float,
    *,
    events: Iterable[Event] = (),
    samples: bool = True,
    steps: bool = False,
    gpus: dict[str, list[Gpu]] | None = None,
    deployments: Mapping[str, str] | None = None,
    taps_alone: bool = False,
    streamed: bool = True,
) -> Evidence:
    """What the store would hold of them; the window begins at ``since`` seconds.

    Servers are of one deployment but for those that ``deployments`` names another for. Where ``taps_alone`` tell of
    requests, no engine's own record is there, and of answers that are not ``streamed`` no time to the first token.
    """
    servers = list(servers)
    deployed = deployments or {}
    row = _edge_row if taps_alone else _row
    hidden = {} if streamed else {"ttft_s": 0.0, "gap_max_s": 0.0}
    rows = [
        row(one) | hidden | {"deployment": deployed.get(one.instance, "sim"), "key": round(one.at * 1e6)}
        for one in asks if one.last >= 0
    ]  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    told = [row | {"deployment": deployed.get(server.name, "sim")} for server in servers for row in server.samples]
    every = dict.fromkeys(name for row in told for name in row)
    names = {name: [row.get(name, np.nan) for row in told] for name in every}
    return Evidence(
        requests_of(columns, ORIGIN_MS, ORIGIN_MS + int(since * 1000)),
        samples_of(names, ORIGIN_MS) if samples else {},
        {},
        list(events),
        gpus or {},
        {one.name: _steps(one) for one in servers} if steps else {},
    )


def _steps(server: Server, slot_ms: int = 100) -> Steps:
    """A server's steps as the store's question tells them."""
    slots: dict[int, dict[str, Any]] = {}
    features = ("generated", "drafts", "accepted") if server.accepts else ()
    for one in server.steps:
        own = slots.setdefault(
            int(one["done"] * 1000 // slot_ms),
            dict.fromkeys(("count", "busy", "prefilled", "decoded", "preempted", "waiting", "kv", *features), 0.0)
            | {"silences": []},
        )
        own["count"] += 1
        for name in ("busy", "prefilled", "decoded", "preempted", *features):
            own[name] += one[name]
        for name in ("waiting", "kv"):
            own[name] = max(own[name], one[name])
        if one["done"] - one["before"] >= 1.5:
            own["silences"].append((int(one["before"] * 1e6), int(one["done"] * 1e6), one["prefilled"]))
    rows = [{"slot": slot, "name": server.name, **own} for slot, own in sorted(slots.items())]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return steps_of(columns, 0, slot_ms)[server.name]


def _row(one: Ask) -> dict[str, Any]:
    late = max(0.0, one.reads * one.made - (one.last - one.first))
    seconds = dict.fromkeys((f"{name}_s" for name in PHASES), 0.0)
    seconds |= {"queue_s": one.started - one.at, "prefill_s": one.first - one.started, "transit_s": 0.001 + late}
    seconds |= {"decode_s": one.last - one.first}
    return {
        **seconds,
        "at_ms": ORIGIN_MS + one.at * 1000,
        "e2e_s": sum(seconds.values()),
        "ttft_s": one.first - one.at + 0.001,
        "gap_max_s": one.gap,
        "prompt": one.prompt,
        "cached": one.cached,
        "output": one.made,
        "preempted": 0,
        "has_engine": 1,
        "selected": 1,
        "instance": one.instance,
        "tenant": one.tenant,
        "model": one.adapter or "m",
        "route": "/v1/completions",
        "version": one.version,
        "engine": "vllm",
        "outcome": one.outcome,
        "error": "",
    }


def _edge_row(one: Ask) -> dict[str, Any]:
    whole = _row(one)
    return (
        whole
        | dict.fromkeys((f"{name}_s" for name in PHASES), 0.0)
        | {"edge_s": whole["transit_s"] - 0.001, "has_engine": 0, "engine": ""}
    )
