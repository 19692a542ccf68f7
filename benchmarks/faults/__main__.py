"""Do faults to real servers and record each: ``python -m benchmarks.faults OUT``.

A run is a folder that ``servescope replay`` plays and ``benchmarks.causes`` asks about: what an agent and its taps saw
(a folder an instance), beside ``truth.json`` (what was done, when, and what it is rightly called) and
``clients.jsonl.gz`` (what each client saw). Of a server's make and a seed there is a run without any fault and with the
same arrivals, so that what a fault cost can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agent.recording.record import record
from benchmarks import idle
from benchmarks.faults import asks, stage
from benchmarks.faults.clients import Clients
from benchmarks.faults.kinds import KINDS, MAKES, MOST_LOGPROBS, QUIET, SYSTEM_WORDS, Kind, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence

_CALM: Final = 22.0
_FAULT: Final = 16.0
_AFTER: Final = 4.0
_DRAIN: Final = 120.0
"""Longest wait for requests that are open when the last was sent."""
_SPARE: Final = 8.0
"""Seconds after the last request in which what is told of it is recorded: engines send spans each five."""
_WARM: Final = 6.0


async def run(server: stage.Vllm | stage.Triton, kind: Kind, seed: int, out: Path) -> None:
    """One run, into ``out``/<kind>_<seed>."""
    name = f"{kind.name}_{seed}"
    folder = out / name
    instances = [name] if len(server.urls) == 1 else [f"{name}-{one}" for one in MAKES[kind.make]]
    length = _CALM + _FAULT + _AFTER
    drawn = _asks(server, kind.make, seed, length)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        async with (
            stage.watched(server, instances, name, data) as taps,
            Clients(taps, name, seed) as clients,
        ):
            await _warm(server, kind.make, seed)
            targets = [
                {"instance": one, "deployment": name, "engine": server.engine, "url": url, "metrics_url": page}
                for one, url, page in zip(instances, server.urls, server.pages, strict=True)
            ]
            over = asyncio.Event()
            most = length + _DRAIN + 2 * _SPARE
            recording = asyncio.create_task(
                record(folder, targets, seconds=most, spool=data / "spool", otlp_http_port=None, until=over)
            )
            await asyncio.sleep(1.5)
            begun, start = time.time(), time.monotonic()
            playing = asyncio.create_task(clients.play(drawn, start))
            await asyncio.sleep(max(0.0, start + _CALM - time.monotonic()))
            since = time.time()
            await kind.inject(Scene(server, clients, random.Random(seed), _FAULT))  # noqa: S311
            injected = time.time()
            await playing
            await clients.drained(_DRAIN)
            end = time.time()
            await asyncio.sleep(_SPARE)
            over.set()
            await recording
        clients.write(folder / "clients.jsonl.gz")
    truth = {
        "kind": kind.name, "cause": kind.cause, "also": kind.also, "tenant": kind.tenant, "make": kind.make,
        "seed": seed, "instances": instances, "timeline_start": begun, "timeline_end": end,
        **({} if kind.name.startswith(QUIET) else {
            "fault_start": since, "fault_injection_end": injected, "fault_end": injected + _AFTER,
            "twin": f"{QUIET}_{kind.make.replace('-', '_')}_{seed}",
        }),
    }  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(truth, indent=1))
    outcomes: dict[str, int] = {}
    for row in clients.rows:
        outcomes[str(row["outcome"])] = outcomes.get(str(row["outcome"]), 0) + 1
    click.echo(f"{name}: {len(clients.rows)} requests, {outcomes}", err=True)


def _asks(server: stage.Vllm | stage.Triton, make: str, seed: int, seconds: float) -> list[asks.Ask]:
    if server.engine == "vllm":
        return asks.llm(seed, seconds, SYSTEM_WORDS.get(make, asks.SYSTEM_WORDS))
    return asks.vision(seed, seconds, len(server.urls))


async def _warm(server: stage.Vllm | stage.Triton, make: str, seed: int) -> None:
    drawn = _asks(server, make, seed + 1000 * (server.engine == "vllm"), _WARM)
    async with Clients(server.urls, "warm", seed) as clients:
        await clients.play(drawn, time.monotonic())
        if server.engine == "vllm":  # the first of these has the engine compile for twenty seconds, whoever waits
            clients.send(replace(drawn[0], body=drawn[0].body | {"logprobs": MOST_LOGPROBS}))
        await clients.drained(_DRAIN)


async def main_async(out: Path, chosen: Sequence[Kind], seeds: Sequence[int], vllm: str, triton: Path) -> None:
    """All runs, a server's make after the other."""
    for make, kinds in groupby(sorted(chosen, key=lambda one: one.make), key=lambda one: one.make):
        wanted = [
            (kind, seed) for kind in kinds for seed in seeds
            if not (out / f"{kind.name}_{seed}" / "truth.json").exists()
        ]  # fmt: skip
        if not wanted:
            continue
        if len(MAKES[make]) > 1 and not make.startswith("vllm"):
            for kind, seed in wanted:  # its spans say which instance they are of by a name that it gets when it starts
                names = [f"{kind.name}_{seed}-{one}" for one in MAKES[make]]
                await _with(make, names, [(kind, seed)], out, vllm, triton)
        else:
            await _with(make, MAKES[make], wanted, out, vllm, triton)


async def _with(
    make: str, given: Sequence[str], wanted: Sequence[tuple[Kind, int]], out: Path, vllm: str, triton: Path
) -> None:
    with tempfile.TemporaryDirectory() as place:
        port = idle.free_block()
        server: stage.Vllm | stage.Triton = (
            stage.Vllm(Path(place), port, port + 18, flags=given, program=vllm)
            if make.startswith("vllm")
            else stage.Triton(Path(place), port, port + 18, names=given, venv=triton)
        )
        try:
            await server.start()
            for kind, seed in wanted:
                shutil.rmtree(out / f"{kind.name}_{seed}", ignore_errors=True)
                await run(server, kind, seed, out)
        finally:
            server.stop()


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--kind", "kinds", multiple=True, help="A kind, or the beginning of its name; repeatable. All without.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(1,), show_default=True)
@click.option("--vllm", default="", help="An installed vllm program or its virtual environment.")
@click.option("--triton", type=click.Path(path_type=Path), default=Path(".venv-triton"), show_default=True)
def main(out: Path, kinds: tuple[str, ...], seeds: tuple[int, ...], vllm: str, triton: Path) -> None:
    """Do faults to real servers and record them into OUT; runs that are there already are left."""
    chosen = [kind for kind in KINDS if not kinds or kind.name.startswith(kinds)]
    if not chosen:
        raise click.UsageError(f"there is no such kind: there are {', '.join(kind.name for kind in KINDS)}")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # others' work on the machine is no part of a run
    try:
        asyncio.run(main_async(out, chosen, seeds, vllm, triton))
    except TimeoutError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
