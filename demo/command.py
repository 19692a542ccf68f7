"""Servescope over real model servers with real traffic and a small trouble now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from demo import plan as demo_plan
from servescope import data_folder, options
from servescope.launch.announce import announce
from servescope.launch.running import refuse_running
from servescope.launch.supervisor import Supervisor
from servescope.options import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--engine", type=click.Choice(["vllm"]), default=None, help="A live vLLM on the CPU beside the others.")
@click.option("--vllm", default="", metavar="PATH", help="An installed vllm program, instead of our own install.")
@options.port_base
@options.data
def demo(engine: str | None, vllm: str, port_base: int | None, data: Path | None) -> None:
    """Real model servers with real traffic and a small trouble now and then, and the whole of Servescope over them."""
    folder = data_folder.made(data, "servescope-demo")
    refuse_running(folder)
    live = engine == "vllm" or bool(vllm)
    plan = demo_plan.build(folder, live_vllm=live, vllm=vllm, port_base=port_base, say=say)
    notes = demo_plan.notes(live_vllm=live)
    asyncio.run(Supervisor(folder, plan.parts, plan.urls, say).run(lambda: announce(plan, notes)))
