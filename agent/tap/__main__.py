"""``python -m agent.tap``: a streaming reverse proxy before a model server that records every request."""

from __future__ import annotations

import base.quiet  # before all others
import base.slim  # noqa: F401 - before structlog

# isort: split
import asyncio
import gc
import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog
from prometheus_client import start_http_server

from agent.pages.probe import probe
from agent.spool.writer import SpoolWriter, producer_folder
from agent.tap.config import FileConfig, read_config, read_upstream
from agent.tap.core import Core
from agent.tap.counters import Counters
from agent.tap.identity import identify
from agent.tap.listening import adopt, inherited, tell_leaving
from agent.tap.open_requests import OpenRequests
from agent.tap.places import places, raise_descriptor_limit
from agent.tap.recorder import Recorder
from agent.tap.report import Reporter
from agent.tap.server import TapServer
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.upstream import Pool
from base import stopping
from base.command import ending_in_words
from base.errors import PortInUseError, ServescopeError
from base.keys import ensure_keys
from base.logs import log_to_stderr
from base.vocabulary import Resource

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine

log = structlog.get_logger()

_MAX_IDLE_UPSTREAM = 512
_SWITCH_SECONDS = 0.0005
_LAST_REPORT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of one tap."""

    instance: str
    deployment: str
    engine: str
    upstream: str
    host: str
    port: int
    spool: Path
    keys: Path
    health_port: int
    record_probes: bool
    config: FileConfig
    leaving_fd: int | None = None


async def serve(options: Options, listener: socket.socket | None = None) -> None:
    """Run a tap until it is told to end, on a listening socket that was handed over if there is one.

    Raises:
        ServescopeError: It can't start.
    """
    loop = asyncio.get_running_loop()
    counters = Counters()
    core, recorder, reporter = _build(options, counters)
    server = TapServer(core)
    stop = asyncio.Event()
    for number in stopping.signals():
        loop.add_signal_handler(number, stop.set)
    await server.start(options.host, options.port, listener)
    if options.health_port:
        try:
            start_http_server(options.health_port, "127.0.0.1", registry=counters.registry)
        except OSError as error:
            what = f"the tap's health port {options.health_port} can't be used: {error.strerror}"
            raise PortInUseError(what, "Choose another --health-port.") from error
    recorder.start(loop)
    gc.collect()
    gc.freeze()  # what imports made stays: a full collection over it would stop every stream for tens of milliseconds
    identifying = loop.create_task(
        identify(core.pool.url, core.pool.away, recorder.learn, partial(probe, access=options.config.access))
    )
    reporting = loop.create_task(reporter.run())
    log.info("tap_started", instance=options.instance, port=server.port, upstream=core.pool.url)
    await stop.wait()
    log.info("tap_draining")
    if options.leaving_fd is not None:
        tell_leaving(options.leaving_fd)
    identifying.cancel()
    await server.stop()
    reporter.stop()
    await asyncio.wait({reporting}, timeout=_LAST_REPORT_SECONDS)  # a disk that hangs must not keep us
    if await asyncio.to_thread(recorder.close):
        core.open.close()
    log.info("tap_stopped")


def _build(options: Options, counters: Counters) -> tuple[Core, Recorder, Reporter]:
    tenant, limits = options.config.tenant, options.config.limits
    scheme, host, port, base = read_upstream(options.upstream)
    resource = {
        Resource.INSTANCE: options.instance,
        Resource.DEPLOYMENT: options.deployment,
        Resource.ENGINE: "" if options.engine == "auto" else options.engine,
        **options.config.place,
    }
    folder = producer_folder(options.spool, f"tap-{options.instance}")
    most = _places(limits.max_connections)
    opened = OpenRequests(folder, most)
    spool = SpoolWriter(folder, begun=lambda signal, path: opened.link(path) if signal == "traces" else None)
    recorder = Recorder(
        spool,
        resource,
        counters,
        hold_seconds=limits.hold_seconds,
        inline=limits.inline_records,
        done=opened.done,
    )
    core = Core(
        pool=Pool(
            scheme,
            host,
            port,
            base=base,
            connect_seconds=limits.connect_seconds,
            idle_seconds=limits.upstream_idle_seconds,
            max_idle=_MAX_IDLE_UPSTREAM,
        ),
        records=recorder,
        counters=counters,
        tenants=Tenants(
            _salt(options.keys),
            header=tenant.header,
            key_header=tenant.key_header,
            names=tenant.names,
            header_wins=tenant.header_wins,
            claim=tenant.claim,
            bound=BoundedNames(tenant.limit, counters.names_overflowed.labels("tenant").inc),
        ),
        models=BoundedNames(tenant.limit, counters.names_overflowed.labels("model").inc),
        limits=replace(limits.limits(), max_connections=most),
        record_probes=options.record_probes,
        sample=limits.sample_traces,
        open=opened,
    )
    reporter = Reporter(core, recorder, SpoolWriter(folder), folder, partial(spool.append, "traces"))
    return core, recorder, reporter


def _places(asked: int) -> int:
    descriptors = raise_descriptor_limit()
    found = places(asked, descriptors)
    if found < asked:
        log.warning("tap_places_lowered", asked=asked, places=found, open_files=descriptors)
    return found


def _salt(keys: Path) -> bytes:
    try:
        return ensure_keys(keys).tenant_salt
    except (OSError, ValueError) as error:
        raise ServescopeError(f"the keys in {keys} can't be read: {error}", "Check --keys and its owner.") from error


@click.command()
@click.option("--instance", required=True, help="Name of the server behind this tap.")
@click.option("--deployment", default="", help="The replicas that serve one model together; the instance if absent.")
@click.option("--engine", default="auto", show_default=True, help="Engine id, such as vllm or triton.")
@click.option("--upstream", required=True, help="The model server, http://HOST:PORT[/PATH].")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for any.")
@click.option(
    "--listen-fd",
    default=None,
    type=click.IntRange(0),
    help="Listening socket that was handed over, instead of --host and --port; systemd's LISTEN_FDS works too.",
)
@click.option(
    "--leaving-fd", default=None, type=click.IntRange(0), help="Where to say that it takes no more connections."
)
@click.option("--spool", required=True, type=click.Path(path_type=Path), help="The data folder's spool/.")
@click.option("--keys", required=True, type=click.Path(path_type=Path), help="The data folder's keys/.")
@click.option(
    "--health-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Loopback port for /metrics; 0 for none.",
)
@click.option("--tenant-header", default=None, help="Header that names the tenant; '' for none.")
@click.option("--tenant-key-header", default=None, help="Header with the client's key, kept as a hash; '' for none.")
@click.option("--record-probes", is_flag=True, help="Record health and metrics probes too.")
@click.option("--config", type=click.Path(path_type=Path), default=None, help="The common YAML config file.")
def main(
    *,
    instance: str,
    deployment: str,
    engine: str,
    upstream: str,
    host: str,
    port: int,
    listen_fd: int | None,
    leaving_fd: int | None,
    spool: Path,
    keys: Path,
    health_port: int,
    tenant_header: str | None,
    tenant_key_header: str | None,
    record_probes: bool,
    config: Path | None,
) -> None:
    """Record every request to a model server, without holding any up.

    Send clients to this port instead of the server's. If this process dies, they see a refused connection, or wait
    where somebody else holds the socket: servescope up, systemd.
    """
    log_to_stderr()
    with ending_in_words("tap"):
        read = read_config(config, instance)
        chosen = {"header": tenant_header, "key_header": tenant_key_header}
        tenant = read.tenant.model_copy(update={k: v for k, v in chosen.items() if v is not None})
        options = Options(
            instance=instance,
            deployment=deployment or instance,
            engine=engine,
            upstream=upstream,
            host=host,
            port=port,
            spool=spool,
            keys=keys,
            health_port=health_port,
            record_probes=record_probes,
            leaving_fd=leaving_fd,
            config=replace(read, tenant=tenant),
        )
        listener = adopt(listen_fd) if listen_fd is not None else inherited(os.environ)
        _run(serve(options, listener))


def _run(coroutine: Coroutine[None, None, None]) -> None:
    sys.setswitchinterval(_SWITCH_SECONDS)  # the recorder's thread must not wait 5 ms for its turn, nor we for ours
    try:
        import uvloop  # noqa: PLC0415 - optional: plain asyncio serves too, a little slower
    except ImportError:
        asyncio.run(coroutine)
    else:
        uvloop.run(coroutine)


if __name__ == "__main__":
    main(auto_envvar_prefix="SERVESCOPE_TAP")
