"""What ``servescope doctor`` examines: this machine, and the Servescope that runs on it."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import psutil

from agent.tap.config import TapLimits
from agent.tap.open_requests import find_left
from agent.tap.places import RESERVED_DESCRIPTORS, places
from base.certificates import SOON_SECONDS, expires, sentence
from base.errors import ConfigError, ServescopeError
from base.foreign_text import legible
from base.formats import rounded
from base.redact import shown
from servescope.launch.running import free, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

State = Literal["ok", "note", "broken"]
LEAST_SERVER: Final = (25, 6)
"""First ClickHouse server with ``format_schema_source``, which the ingest needs."""
_HALVES_SECONDS: Final = 3_600
_LOST_HALVES: Final = (
    "silent: its engine samples or loses spans; past_the_edge: clients that send past the tap; edge_missing: records"
    " that a tap lost, or that are under way"
)
_TAPS: Final = """
SELECT
  instance,
  sumIf(last, name = 'servescope.tap.requests.open') AS open,
  sumIf(last, name = 'servescope.tap.requests') AS ended,
  sumIf(last, name = 'servescope.tap.connections_refused') AS refused,
  sumIf(last, name = 'servescope.tap.records_lost') AS lost,
  toFloat64(dateDiff('second', max(at), now64(9))) AS age
FROM
(
  SELECT ResourceAttributes['service.instance.id'] AS instance, ResourceAttributes['process.pid'] AS pid,
    MetricName AS name, Attributes AS attributes, argMax(Value, TimeUnix) AS last, max(TimeUnix) AS at
  FROM (
    SELECT ResourceAttributes, MetricName, Attributes, Value, TimeUnix FROM otel_metrics_sum
    WHERE ServiceName = 'servescope-tap' AND TimeUnix > now() - INTERVAL 1 HOUR
    UNION ALL
    SELECT ResourceAttributes, MetricName, Attributes, Value, TimeUnix FROM otel_metrics_gauge
    WHERE ServiceName = 'servescope-tap' AND TimeUnix > now() - INTERVAL 1 HOUR)
  GROUP BY instance, pid, name, attributes
)
GROUP BY instance ORDER BY instance LIMIT 1000
"""
"""The newest report of each tap process of the last hour, summed up to instances."""
_LEFT_SECONDS: Final = 60.0
"""A tap that was killed is there again before that, and settles what was open."""
_LEAST_FREE_BYTES: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined.

    Attributes:
        name: What.
        state: ``ok``; ``note`` for what is worth knowing and harms nothing; ``broken``.
        text: What was seen.
        fix: What mends it, "" when there is nothing to mend.
    """

    name: str
    state: State
    text: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """As a mapping of texts."""
        return asdict(self)


def examine(data: Path, clickhouse: str = "", named: Mapping[str, Path] | None = None) -> list[Finding]:
    """Examine everything that can be seen from here; never raises for what it finds.

    Args:
        data: Data folder.
        clickhouse: URL of the store; "" is that of the Servescope that runs.
        named: Files of certificates, by the setting that names them.
    """
    found = [*_machine(data), *certificates(named or {}, time.time())]
    facts = running(data)
    if facts is None:
        found += _absent(data)
    else:
        found.append(Finding("servescope", "ok", f"process {facts['pid']}, since {facts['started']}"))
        found += _parts(facts)
    found += left_open(data, time.time())
    url = clickhouse or (facts["urls"]["store"] if facts else "")
    if url:
        found.append(_store(data, url, _restarted(facts or {}, "store")))
        if found[-1].state == "ok":
            found += _halves(data, url)
            found += _tap_reports(data, url)
    return found


def _machine(data: Path) -> Iterator[Finding]:
    least = (3, 11)
    yield Finding("python", "ok" if sys.version_info >= least else "broken", platform.python_version())
    for use, module in (("the embedded store", "chdb"), ("the dashboard", "streamlit"), ("paging", "pagerduty")):
        there = find_spec(module) is not None
        yield Finding(f"package {module}", "ok" if there else "note", f"{'' if there else 'not '}installed, for {use}",
                      "" if there else "pip install 'servescope[all]'")  # fmt: skip
    yield _gpu()
    yield open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
    folder = data if data.exists() else data.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free > _LEAST_FREE_BYTES
    yield Finding("disk", "ok" if enough else "broken", f"{free / 1e9:.1f} GB free at {folder}",
                  "" if enough else "Free some space, or put the data elsewhere with --data")  # fmt: skip


def certificates(named: Mapping[str, Path], now: float) -> Iterator[Finding]:
    """Until when certificates can be shown.

    Args:
        named: Their files, by the setting that names them.
        now: Unix seconds.
    """
    for setting, file in named.items():
        name = f"certificate {setting}"
        try:
            until = expires(file)
        except ConfigError as error:
            yield Finding(name, "broken", error.what, error.fix)
            continue
        soon = until - now <= SOON_SECONDS
        state: State = "broken" if until <= now else "note" if soon else "ok"
        yield Finding(name, state, f"{file} {sentence(until, now)}", "Put a new one in its place" if soon else "")


def open_files(soft: int, hard: int) -> Finding:
    """What the limits on open files leave a tap, which raises the soft one to the hard one.

    Args:
        soft: ``ulimit -n``.
        hard: ``ulimit -Hn``.
    """
    asked = TapLimits().max_connections
    room = places(asked, hard)
    text = f"at most {hard} ({soft} unless raised): a tap carries {room} requests at once"
    if room >= asked:
        return Finding("open files", "ok", text)
    need = 2 * asked + RESERVED_DESCRIPTORS
    fix = f"Raise the hard limit to {need} or more (LimitNOFILE= of systemd, /etc/security/limits.conf)"
    return Finding("open files", "note", f"{text}; others are answered 503", fix)


def _gpu() -> Finding:
    try:
        import pynvml  # noqa: PLC0415 - absent in a light install

        pynvml.nvmlInit()
    except ImportError:
        return Finding("gpu", "note", "NVML is not installed: no GPU telemetry", "pip install 'servescope[agent]'")
    except Exception as error:  # noqa: BLE001 - NVML raises its own classes, made at run time
        return Finding("gpu", "note", f"no NVIDIA driver answers: {error}; GPU panels stay empty")
    try:
        return Finding("gpu", "ok", f"{pynvml.nvmlDeviceGetCount()} NVIDIA GPUs")
    finally:
        pynvml.nvmlShutdown()


def _holder(store: Path) -> Iterator[Finding]:
    """Who has an embedded store over the folder although no Servescope runs: a command, or a store started by hand."""
    lock = store / "lock"
    if not lock.exists() or free(lock):
        return
    holder = lock.read_text(errors="replace").strip() or "unknown"
    yield Finding(
        "store", "note", f"process {holder} has {store} open, started by a command or by hand",
        "Until it ends, servescope up and commands over this folder wait or fail",
    )  # fmt: skip


def _absent(data: Path) -> Iterator[Finding]:
    """No Servescope says that it runs: there is none, or it is on its way."""
    lock = data / "lock"
    if lock.exists() and not free(lock):
        holder = lock.read_text(errors="replace").strip() or "unknown"
        text = f"process {holder} is starting or stopping over {data}"
        yield Finding("servescope", "note", text, "Ask again in a moment")
        return
    yield Finding("servescope", "note", f"none runs over {data}", "Start one: servescope up")
    yield from _holder(data / "store")


def _parts(facts: dict[str, Any]) -> Iterator[Finding]:
    urls = facts["urls"]
    checks = {
        "collector": urls.get("collector_health"),
        "agent": f"{urls['agent_health']}/healthz" if "agent_health" in urls else None,
        "alerts": f"{urls['alerts_health']}/healthz" if "alerts_health" in urls else None,
        "dashboard": f"{urls['dashboard']}/_stcore/health" if "dashboard" in urls else None,
    }
    for name, url in checks.items():
        if url is None:
            continue
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback URLs of our own run file
                text = response.read(20_000).decode(errors="replace")
        except urllib.error.HTTPError as error:
            text = error.read(2_000).decode(errors="replace")
            yield Finding(name, "broken", _brief(text) or str(error), f"See {name}.log in the folder logs")
        except OSError as error:
            yield Finding(name, "broken", f"does not answer at {url}: {error}", f"See {name}.log in the folder logs")
        else:
            yield Finding(name, "ok", _brief(text) + _restarted(facts, name))
            for problem in _problems(text):
                yield Finding(name, "broken", problem, f"See {name}.log in the folder logs")

    for instance, url in urls.get("taps", {}).items():
        yield _tap(instance, url, facts.get("pids", {}).get(f"tap-{instance}"), _restarted(facts, f"tap-{instance}"))


def _tap(instance: str, url: str, pid: int | None, restarted: str) -> Finding:
    """Whether a tap runs: its socket is open without it too, and all that it is asked it passes on."""
    name, parts = f"tap {instance}", urlsplit(url)
    if pid is not None and not psutil.pid_exists(pid):
        fix = f"Clients wait for it: see tap-{instance}.log in the folder logs"
        return Finding(name, "broken", f"its process {pid} is gone and not started again yet{restarted}", fix)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5).close()
    except OSError as error:
        fix = f"Clients are refused: see tap-{instance}.log in the folder logs"
        return Finding(name, "broken", f"does not listen at {url}: {error}", fix)
    return Finding(name, "ok", f"listens at {url}{restarted}")


def _tap_reports(data: Path, url: str) -> Iterator[Finding]:
    """What taps have said of themselves within the last hour, and what they refused or lost."""
    from collector.store.address import locate  # noqa: PLC0415 - absent in an agent's install
    from collector.store.client import Store, StoreError  # noqa: PLC0415 - absent in an agent's install

    try:
        rows = Store(locate(data, url, role="reader")).rows(_TAPS)
    except (StoreError, ServescopeError) as error:
        yield Finding("taps", "note", f"their reports can't be read: {error}")
        return
    for row in rows:
        name = f"reports of tap {row['instance']}"
        text = f"{row['open']:.0f} requests open, {row['ended']:.0f} ended; said {rounded(round(row['age']))} ago"
        yield Finding(name, "ok", text)
        if row["refused"]:
            fix = "Raise agent.tap.max_connections (or max_tunnels) and the limit on open files, or add a replica"
            yield Finding(name, "broken", f"{row['refused']:.0f} connections or sessions had no place", fix)
        if row["lost"]:
            fix = f"See tap-{row['instance']}.log in the folder logs, and whether the disk is full"
            yield Finding(name, "broken", f"{row['lost']:.0f} requests were served and not recorded", fix)


def left_open(data: Path, now: float) -> Iterator[Finding]:
    """Requests that were open in taps which were killed and did not come back: they have no rows yet.

    Args:
        data: The data folder.
        now: Unix seconds.
    """
    for folder in sorted((data / "spool").glob("tap-*")):
        name = folder.name.removeprefix("tap-")
        try:
            lefts = find_left(folder)
        except OSError as error:
            yield Finding(f"open requests of tap {name}", "note", f"can't be read: {error.strerror}")
            continue
        for left in lefts:
            left.release()
        gone = [left for left in lefts if left.requests and now - left.alive_ns / 1e9 > _LEFT_SECONDS]
        if gone:
            count = sum(len(left.requests) for left in gone)
            ago = now - max(left.alive_ns for left in gone) / 1e9
            text = f"{count} had no end when its process did, {rounded(round(ago))} ago; they have no rows"
            fix = f"Start a tap for {name} over this folder again: it records them when it starts"
            yield Finding(f"open requests of tap {name}", "broken", text, fix)


def _restarted(facts: dict[str, Any], name: str) -> str:
    restarts = facts.get("restarts", {}).get(name, 0)
    return f"; restarted {'once' if restarts == 1 else f'{restarts} times'}" if restarts else ""


def _problems(text: str) -> list[str]:
    """What a part that runs says is wrong: a server that never answered, batches that do not get through."""
    try:
        facts = json.loads(text)
    except ValueError:
        return []
    found = facts.get("problems") if isinstance(facts, dict) else None
    return [str(problem)[:300] for problem in found] if isinstance(found, list) else []


def _brief(text: str) -> str:
    try:
        facts = json.loads(text)
    except ValueError:
        return text.strip()[:200]
    if not isinstance(facts, dict):
        return str(facts)[:200]
    told = {name: value for name, value in facts.items() if value != "" and not isinstance(value, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in told.items())[:300]


def _store(data: Path, url: str, restarted: str) -> Finding:
    from collector.store.address import locate  # noqa: PLC0415 - absent in an agent's install
    from collector.store.client import Store, StoreError  # noqa: PLC0415 - absent in an agent's install

    plain = shown(url)
    try:
        store = Store(locate(data, url, role="reader"))
        row = store.rows("SELECT version() AS version, (SELECT count() FROM requests) AS requests")[0]
    except StoreError as error:
        known = error.name in {"UNKNOWN_TABLE", "UNKNOWN_DATABASE"}
        fix = f"Make the tables: servescope migrate --clickhouse {plain}" if known else error.fix
        return Finding("clickhouse", "broken", f"{plain}: {error.what}", fix)
    except ServescopeError as error:
        return Finding("clickhouse", "broken", f"{plain}: {error.what}", error.fix)
    version = str(row["version"])
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_SERVER:
        least = ".".join(str(part) for part in LEAST_SERVER)
        return Finding("clickhouse", "broken", f"{plain} is version {version}", f"Ingest needs {least} or newer")
    return Finding("clickhouse", "ok", f"{plain}, version {version}, {row['requests']} requests{restarted}")


def _halves(data: Path, url: str) -> Iterator[Finding]:
    """Requests of the last hour of which one half alone is there, per instance whose engine sends spans."""
    from analytics.questions import halves  # noqa: PLC0415 - absent in an agent's install
    from analytics.selection import Selection  # noqa: PLC0415
    from analytics.window import Window  # noqa: PLC0415
    from collector.store.address import locate  # noqa: PLC0415
    from collector.store.client import Store  # noqa: PLC0415

    try:
        store = Store(locate(data, url, role="reader"))
        answer = halves.ask(store, Selection(Window.last(_HALVES_SECONDS)))
    except ServescopeError as error:
        yield Finding("halves", "broken", error.what, error.fix)
        return
    for one in answer.result.instances:
        if not one.speaks:
            continue
        alone = ", ".join(f"{number:.0f} {cause}" for cause, number in sorted(one.alone.items()))
        whole = one.met + sum(one.alone.values())
        text = f"{one.met:.0f} of {whole:.0f} requests of the last hour have both halves"
        text += f"; alone: {alone}" if alone else ""
        known = "" if not one.unexplained else _LOST_HALVES
        yield Finding(f"halves {legible(one.instance)}", "note" if known else "ok", text, known)
