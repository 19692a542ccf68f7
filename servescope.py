"""The command line of Servescope, and nothing else: parses, wires and prints."""

from __future__ import annotations

from agent import quiet

# isort: split
import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import configuration
import momentary
import questions
import wiring
from agent.errors import ConfigError, ServescopeError
from agent.logs import log_to_stderr
from agent.redact import redacted
from supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

quiet.over()

_PARTS = {
    "agent": ("agent", "The sidecar: scrapes, takes spans, spools and ships."),
    "tap": ("agent.tap", "The streaming reverse proxy in front of one model server."),
    "store": ("collector.embedded", "The embedded ClickHouse, alone."),
    "collector": ("collector", "Receives OpenTelemetry and writes into ClickHouse."),
    "alerts": ("alerts", "Evaluates SLOs and rules, keeps incidents, notifies."),
    "dashboard": ("dashboard", "The dashboard."),
}


class _Group(click.Group):
    """Turns every error meant for people into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ServescopeError as error:
            _fail(str(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click ends quietly: the reader has seen enough
            _fail(redacted(f"{error.filename or 'the output'}: {error.strerror or error}"))


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _say(line: str) -> None:
    if sys.stderr.isatty() or not os.environ.get("SERVESCOPE_QUIET"):
        click.echo(line, err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "SERVESCOPE"})
@click.version_option(package_name="servescope")
def main() -> None:
    """Observability and incident response for model serving."""
    # What a command prints is its answer, for people and pipes; what it logs goes beside that.
    log_to_stderr("warning")


_data = click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder.")
_config = click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, help="servescope.yaml."
)
_clickhouse = click.option("--clickhouse", default="", help="URL of a ClickHouse server; the embedded store if absent.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")


@main.command()
@click.option("--target", "targets", multiple=True, metavar="URL", help="A model server; found by itself when absent.")
@click.option("--slos", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, help="SLO file.")
@click.option("--port-base", type=click.IntRange(1024, 65000), default=None, help="First of a row of fixed ports.")
@click.option("--no-tap", is_flag=True, help="Start no tap in front of the servers.")
@_clickhouse
@_config
@_data
def up(
    targets: tuple[str, ...],
    slos: Path | None,
    port_base: int | None,
    no_tap: bool,
    clickhouse: str,
    config: Path | None,
    data: Path | None,
) -> None:
    """Watch the model servers of this machine: store, collector, agent, taps, alerts and dashboard."""
    import lookout  # noqa: PLC0415 - commands load only what they need

    settings, slos = _configured(config, slos)
    found = asyncio.run(_targets(targets, settings, tap=not no_tap))
    folder = _folder(data or settings.get("data"), "servescope")
    momentary.refuse_running(folder)
    # The parts' own agent is told what is found here, so that a tap stands in front of it.
    agent = settings.get("agent") or {}
    looks = bool(agent.pop("discover", False)) or not (targets or agent.get("targets"))
    plan = wiring.plan(folder, settings, found, clickhouse=clickhouse, slos=slos, port_base=port_base, say=_say)
    if not found:
        _say(
            "No model server was found here yet; those that start later are watched too. Give one elsewhere with "
            "--target http://host:port; OpenTelemetry is taken meanwhile"
        )
    supervisor = Supervisor(folder, plan.parts, plan.urls, _say)
    watch = partial(lookout.watch, plan, supervisor, _say, tap=not no_tap) if looks else None
    asyncio.run(supervisor.run(lambda: _announce(plan), watch))


@main.command()
@click.option("--engine", type=click.Choice(["vllm"]), default=None, help="A live vLLM on the CPU beside the others.")
@click.option("--vllm", default="", metavar="PATH", help="An installed vllm program, instead of our own install.")
@click.option("--port-base", type=click.IntRange(1024, 65000), default=None, help="First of a row of fixed ports.")
@_data
def demo(engine: str | None, vllm: str, port_base: int | None, data: Path | None) -> None:
    """Real model servers with real traffic and a small trouble now and then, and the whole of Servescope over them."""
    from demo import plan as demo_plan  # noqa: PLC0415 - the demo is an extra

    folder = _folder(data, "servescope-demo")
    momentary.refuse_running(folder)
    live = engine == "vllm" or bool(vllm)
    plan = demo_plan.build(folder, live_vllm=live, vllm=vllm, port_base=port_base, say=_say)
    notes = demo_plan.notes(live_vllm=live)
    asyncio.run(Supervisor(folder, plan.parts, plan.urls, _say).run(lambda: _announce(plan, notes)))


def _part(name: str, module: str, text: str) -> None:
    @main.command(
        name,
        help=text,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "auto_envvar_prefix": None},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def part(arguments: tuple[str, ...]) -> None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the part itself, no shell

    part.__doc__ = text


for _name, (_module, _text) in _PARTS.items():
    _part(_name, _module, _text)


@main.command()
@click.argument("where", metavar="URL|FILE")
@click.option("--json", is_flag=True, expose_value=False, help="The same: its answer is JSON of a stable shape.")
@click.option("--key-file", type=click.Path(path_type=Path), default=None, help="File with the key its pages want.")
@click.option("--key-env", default="", metavar="NAME", help="Environment variable that holds that key instead.")
@click.option("--key-header", default="authorization", show_default=True, help="Header that carries it.")
def probe(where: str, key_file: Path | None, key_env: str, key_header: str) -> None:
    """What we understand of a model server or of a saved metrics page, as JSON."""
    from agent import probing  # noqa: PLC0415 - commands load only what they need
    from agent.access import Access  # noqa: PLC0415 - as above

    click.echo(json.dumps(probing.probe(where, access=Access.checked(key_file, key_env, key_header)), indent=2))


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, metavar="URL", help="A model server; found by itself when absent.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@_config
@_json
@_data
def record(
    out: Path, targets: tuple[str, ...], seconds: float, config: Path | None, as_json: bool, data: Path | None
) -> None:
    """Make a recording of what the agent sees of a model server."""
    from agent import recording  # noqa: PLC0415 - commands load only what they need

    settings = configuration.read_settings(config)
    found = asyncio.run(_targets(targets, settings, tap=False))
    if not found:
        raise ConfigError("no model server was found here", "Give one with --target http://host:port")
    spool = (data or wiring.default_data()) / "spool"
    made = asyncio.run(recording.record(out, found, seconds=seconds, spool=spool, say=_say))
    if as_json:
        click.echo(json.dumps([
            {"folder": str(one.folder), "instance": one.instance}
            | {what.replace(" ", "_"): count for what, count in one.counts.items()}
            for one in made
        ]))  # fmt: skip


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--shift-to-now", is_flag=True, help="Move all times so that the recording ends now.")
@click.option("--loop", is_flag=True, help="Play in real time, over and over.")
@click.option("--again", is_flag=True, help="Store what was stored before once more, its rows being gone.")
@_clickhouse
@_json
@_data
def replay(
    folder: Path,
    shift_to_now: bool,
    loop: bool,
    again: bool,
    clickhouse: str,
    as_json: bool,
    data: Path | None,
) -> None:
    """Ingest a recording at its own times, through the same code path as live data."""
    from agent import replaying  # noqa: PLC0415 - commands load only what they need

    with momentary.collector(data or wiring.default_data(), clickhouse, _say) as (otlp, keys):
        report = asyncio.run(
            replaying.replay(folder, otlp, shift_to_now=shift_to_now, loop=loop, again=again, keys=keys)
        )
    if report["batches"] and report["repeated"] == report["batches"]:
        _say("All of it had been stored before and is left as it is; if its rows are gone since, add --again")
    click.echo(json.dumps(report) if as_json else ", ".join(f"{key} {value}" for key, value in report.items()))


@main.command()
@_clickhouse
@_json
@_data
def migrate(clickhouse: str, as_json: bool, data: Path | None) -> None:
    """Bring the schema up to date; the collector does it by itself at its start."""
    from collector import migrate as migrations  # noqa: PLC0415 - commands load only what they need
    from collector.store import Store, locate  # noqa: PLC0415 - as above

    with momentary.store(data or wiring.default_data(), clickhouse, _say, new=True) as url:
        address = locate(data or wiring.default_data(), url, role="owner")
        with Store(address, timeout_seconds=migrations.TIMEOUT_SECONDS) as store:
            applied = migrations.apply(store)
    if as_json:
        click.echo(json.dumps({"applied": applied}))
    else:
        click.echo("\n".join(applied) if applied else "The schema is up to date")


@main.command()
@_clickhouse
@_json
@_data
def doctor(clickhouse: str, as_json: bool, data: Path | None) -> None:
    """Check this machine and the Servescope that runs on it; exit code 1 when something is broken."""
    import checkup  # noqa: PLC0415 - commands load only what they need

    findings = checkup.examine(data or wiring.default_data(), clickhouse)
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.state:<8} {finding.name}: {finding.text}")
            if finding.fix:
                click.echo(f"{'':<8} → {finding.fix}")
    if any(finding.state == "broken" for finding in findings):
        sys.exit(1)


@main.group(name="config")
def config_group() -> None:
    """The configuration."""


@config_group.command(name="check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_json
def config_check(file: Path, as_json: bool) -> None:
    """Check servescope.yaml; every fault names its line and field."""
    settings, slos = _configured(file, None)
    if as_json:
        click.echo(json.dumps({"file": str(file), "sections": sorted(settings), "slos": str(slos) if slos else None}))
    else:
        click.echo(f"{file} is right")


def _configured(config: Path | None, slos: Path | None) -> tuple[dict[str, Any], Path | None]:
    """The settings and the SLO file, both checked, with all that they name."""
    from alerts import rulesfile  # noqa: PLC0415 - commands load only what they need
    from alerts.config import AlertsConfig  # noqa: PLC0415 - as above

    settings = configuration.read_settings(config, files=True)
    slos = slos or configuration.slo_file(settings, config)
    if slos is not None:
        rulesfile.load(slos)
    AlertsConfig.model_validate(settings.get("alerts", {})).pagerduty.routing_key()
    return settings, slos


def _folder(data: str | Path | None, name: str) -> Path:
    folder = Path(data).expanduser() if data else wiring.default_data(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data folder {folder} can't be made: {error.strerror}", "Choose another --data"
        ) from error
    return folder


async def _targets(urls: Sequence[str], settings: dict[str, Any], *, tap: bool) -> list[dict[str, Any]]:
    import lookout  # noqa: PLC0415 - commands load only what they need
    from agent import discovery  # noqa: PLC0415 - as above

    configured = (settings.get("agent") or {}).get("targets") or []
    if configured and not urls:
        return [{**target, "tap": tap and target.get("tap", True)} for target in configured]
    found = discovery.targets_of(urls) if urls else await discovery.find_local()
    return [lookout.described(target, tap=tap) for target in found]


def _announce(plan: wiring.Plan, notes: Sequence[str] = ()) -> None:
    lines = ["", "Servescope is running.", "", f"  Dashboard   {plan.urls['dashboard']}"]
    for instance, url in plan.urls["taps"].items():
        lines.append(f"  Tap         {url}  in front of {instance}: send clients here to see every request")
    lines += [
        f"  OTLP        {plan.urls['otlp']}  any OpenTelemetry SDK or Collector (HTTP)",
        f"  ClickHouse  {plan.urls['store']}  servescope sql, curl, any ClickHouse client",
        f"  Data        {plan.data}",
        *(f"  {note}" for note in notes),
        "",
        "Ctrl-C stops everything; the data stays.",
    ]
    click.echo("\n".join(lines), err=True)


main.add_command(questions.sql)
for _command in questions.COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
