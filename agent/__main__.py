"""``python -m agent``: the sidecar beside the model servers of one machine or pod."""

from __future__ import annotations

import base.quiet  # before all others
import base.slim  # noqa: F401 - before structlog

# isort: split
import asyncio
import contextlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import structlog
import uvloop

from agent.config import ENVIRONMENT_PREFIX, AgentConfig, load, unknown_variables
from agent.discovery.static import targets_of
from agent.sidecar import CONFIGURATION, Sidecar
from base.command import ending_in_words
from base.errors import ServescopeError
from base.logs import log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.target import Target


_STAY: Final = sorted(AgentConfig.model_fields.keys() - {"targets"})
"""Settings that are read at the start alone."""

log = structlog.get_logger()


@click.command(context_settings={"auto_envvar_prefix": "SERVESCOPE"})
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Data folder.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="YAML file with a section agent.")
@click.option("--collector", help="Base URL of the collector, instead of the configuration's.")
@click.option("--target", "targets", multiple=True, help="URL (or NAME=URL) of a further model server; repeatable.")
@click.option("--discover", is_flag=True, help="Look for model servers on this machine.")
@click.option(
    "--discovery",
    "entries",
    multiple=True,
    help="Entry of agent.discovery as YAML, such as {kind: dns, name: vllm.chat, port: 8000}; repeatable, instead of "
    "the configuration's.",
)
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
def main(
    data: Path,
    config: Path | None,
    collector: str | None,
    targets: tuple[str, ...],
    discover: bool,
    entries: tuple[str, ...],
    log_level: str,
) -> None:
    """Watch model servers and ship what is seen to a collector."""
    log_to_stderr(log_level)
    with ending_in_words("agent", f"Check the data folder {data} and its permissions"):
        over = {
            "DISCOVER": "true" if discover else None,
            "COLLECTOR": collector,
            "DISCOVERY": f"[{', '.join(entries)}]" if entries else None,
        }
        given = {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in over.items() if value}
        read = partial(load, config, dict(os.environ) | given)
        settings = read()
        for name in unknown_variables(os.environ):
            log.warning("unknown_variable", variable=name, effect="it is no setting of the agent")
        # A page costs less CPU than on asyncio's own loop, and so it is measured (benchmarks.scrape).
        uvloop.run(_live(Sidecar(settings, data, _named(settings, targets)), settings, read, targets))


def _named(settings: AgentConfig, urls: tuple[str, ...]) -> list[Target]:
    return targets_of(urls, [target.target() for target in settings.targets])


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    try:
        yield
    except ServescopeError as error:
        log.warning("reload_failed", error=str(error))


async def _live(
    sidecar: Sidecar, settings: AgentConfig, read: Callable[[], AgentConfig], urls: tuple[str, ...]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        with _warned():
            anew = read()
            sidecar.tell(CONFIGURATION, _named(anew, urls))
            log.info("agent_reloaded", targets=[target.instance for target in sidecar.targets])
            # What servers there are and what lies in certificates is all that changes while it runs.
            if left := [name for name in _STAY if getattr(anew, name) != getattr(settings, name)]:
                log.warning("settings_changed_in_vain", settings=left, effect="they count from the next start on")
        with _warned():
            sidecar.renew()

    loop.add_signal_handler(signal.SIGHUP, reload)
    await sidecar.run(stop)


if __name__ == "__main__":
    main()
