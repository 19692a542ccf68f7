"""GPUs and hosts: what the hardware does beside the tokens it makes, and what starves an engine on its machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from analytics.outliers import LEAST
from dashboard import escape, words
from dashboard.data import ask
from dashboard.figures import Trace, lines
from dashboard.page_context import VERSION
from dashboard.panel import empty, foot, guarded, panel, tiles
from dashboard.shell import AGAINST, page
from dashboard.tables import percent, table
from dashboard.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from analytics.questions.gpus import GpuRow, Gpus
    from analytics.questions.hosts import HostRow, Hosts
    from dashboard.data import Question
    from dashboard.page_context import PageContext

TITLE: Final = "GPUs & hosts"
"""In the navigation."""
PLACE: Final = 35
"""Order in the navigation, the front page first."""
QUESTION: Final = "What does the hardware do?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""

MISSING: Final = (
    "An agent beside the GPUs reads NVIDIA's driver once a second: `servescope up` there, with `gpu: true`. "
    "An exporter's page counts too, by `gpu_pages` or by remote write."
)
MISSING_HOSTS: Final = "An agent on the engine's machine reads its processes: `servescope up` there, with `host: true`."
_UNSEEN: Final = (
    "The machine is read, and none of its engine's processes is seen: the agent has to share the engine's machine and "
    "process ids, and run as its user or as root."
)
_UNTOLD: Final = (
    "An engine's processes are seen, and how long they waited for a CPU is not told: an agent tells it from its second "
    "look on, and so do recordings that an agent made."
)
_NOBODYS: Final = (
    "Nobody says whose a GPU is: an agent does that sees the engine's processes, or an exporter that names its pod."
)
_ABOUT: Final = {
    "activity": "Share of the multiprocessors that had work (Hopper and later); of older GPUs the share of time with "
    "any kernel, which reads 100 % on every busy LLM server.",
    "tokens": "A GPU's share of what its instances generated; known where the agent sees their processes.",
    "power": "Mean power of a step.",
    "throttled": "Share of samples in which the clocks were held down: power cap, heat, power brake.",
    "memory": "vLLM takes most of it at its start, whatever it needs: see the KV cache for that.",
}
_DRAWN: Final = 8
"""Lines of a chart: those that stand out, were slowed down or worked most."""
_SAID: Final = 3
"""GPUs and engines that are named above all figures."""
_STARVED: Final = 0.1
"""Seconds a second without a CPU that are worth a word."""
_FULL: Final = 0.8
"""Share of the open files that a process may have from which on it is worth a word."""


def draw() -> None:
    """The page of GPUs and hosts."""
    page(_body, needs=_needs, compared=_compared)


def _needs() -> list[Question]:
    return [("gpus", {}), ("hosts", {})]


def _compared() -> list[Question]:
    """Processes know no version: of one alone they would be all again."""
    by_version = str(st.session_state.get("compare") or "").removeprefix(AGAINST).startswith(VERSION)
    return _needs()[:1] if by_version else _needs()


def _body(context: PageContext) -> None:
    guarded(context, "answer", lambda: _answer(context))
    tiles(context, "tiles", lambda: _tiles(context))
    guarded(context, "charts", lambda: _charts(context))
    guarded(context, "gpus", lambda: _gpu_table(context))
    guarded(context, "hosts", lambda: _host_table(context))


def _charts(context: PageContext) -> None:
    """Of GPUs where there are any: that there are none is said once, in the answer."""
    with st.container(horizontal=True, gap="small"):
        if ask("gpus", context.selection).result.gpus:
            _gpu_panel(context, "activity", "Activity", "ratio", lambda row: row.activity, top=1.05)
            _gpu_panel(context, "tokens", "Tokens generated", "tokens_per_second", lambda row: row.tokens)
            _gpu_panel(context, "power", "Power", "W", lambda row: row.power)
            _gpu_panel(context, "throttled", "Slowed down", "ratio", lambda row: row.throttled, top=1.05)
            _gpu_panel(context, "memory", "GPU memory in use", "ratio", lambda row: row.memory, top=1.05)
        with st.container(key="half-delay"):
            panel(
                "delay", "hosts", context,
                lambda result: _hosts(result, context, "Waited for a CPU", lambda row: row.delay),
                missing=no_delay_in_words(ask("hosts", context.selection).result.hosts),
                title="Waited for a CPU", has_data=lambda result: any(_some(row.delay) for row in result.hosts),
                about="Seconds a second that threads of the engine could have run and no core was free, all together.",
            )  # fmt: skip


def no_delay_in_words(hosts: Sequence[HostRow]) -> str:
    """Why nobody tells how long an engine waited for a CPU, and what brings it."""
    if not hosts:
        return MISSING_HOSTS
    return _UNTOLD if any(row.processes for row in hosts) else _UNSEEN


def _gpu_panel(
    context: PageContext,
    key: str,
    title: str,
    unit: str,
    values: Callable[[GpuRow], Sequence[float | None]],
    *,
    top: float | None = None,
) -> None:
    def drawn(result: Gpus) -> object:
        shown = [row for row in result.gpus if _some(values(row))][:_DRAWN]
        palette = context.style.colours.series
        # a GPU has one colour in all charts of the page
        places = {row.gpu: place for place, row in enumerate(result.gpus)}
        traces = [Trace(_short(row, result), values(row), palette[places[row.gpu] % len(palette)]) for row in shown]
        return lines(result.times, traces, context.style, title=title, unit=unit, top=top)

    with st.container(key=f"half-{key}"):
        panel(
            key, "gpus", context, drawn, missing=_NOBODYS if key == "tokens" else MISSING, title=title,
            about=_ABOUT[key],
            has_data=lambda result: any(_some(values(row)) for row in result.gpus),
        )  # fmt: skip


def _hosts(
    result: Hosts, context: PageContext, title: str, values: Callable[[HostRow], Sequence[float | None]]
) -> object:
    palette = context.style.colours.series
    shown = [row for row in result.hosts if _some(values(row))][:_DRAWN]
    traces = [
        Trace(row.instance or row.node, values(row), palette[index % len(palette)]) for index, row in enumerate(shown)
    ]
    return lines(result.times, traces, context.style, title=title, unit="s per second")


def _some(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)


def _short(row: GpuRow, result: Gpus) -> str:
    """``GPU 3``, with its machine where there are several."""
    machines = {one.node for one in result.gpus}
    return f"GPU {row.index}" if len(machines) == 1 else f"{row.node} · {row.index}"


def _tiles(context: PageContext) -> list[Tile]:
    gpus: list[GpuRow] = ask("gpus", context.selection).result.gpus
    hosts: list[HostRow] = ask("hosts", context.selection).result.hosts
    whole = [row for row in gpus if not row.parent]
    power = [row.power_watts for row in whole if row.power_watts is not None]
    tokens = [row.tokens_per_second for row in gpus if row.tokens_per_second is not None]
    told = [row for row in gpus if row.tokens_per_second is not None and row.power_watts]
    watts, made = sum(row.power_watts or 0.0 for row in told), sum(row.tokens_per_second or 0.0 for row in told)
    activity = [row.activity_ratio for row in gpus if row.activity_ratio is not None]
    slowed = [row for row in gpus if row.throttled_ratio]
    delay = max((row.delay_ratio for row in hosts if row.delay_ratio is not None), default=None)
    return [
        Tile("GPUs", words.count(len(whole)) if gpus else words.NOTHING, _plural_parts(len(gpus) - len(whole))),
        Tile("Activity", words.ratio(sum(activity) / len(activity) if activity else None), "mean of all GPUs"),
        Tile("Power", f"{words.count(sum(power))} W" if power else words.NOTHING, "all GPUs"),
        Tile("Tokens per watt", words.count(made / watts if watts else None),
             "generated a second, per W", help="" if tokens else "No GPU's instance is known"),
        Tile("Slowed down", words.count(len(slowed)) if gpus else words.NOTHING, "GPUs, by power or heat"),
        Tile("Waited for a CPU", words.seconds(delay), "a second, the worst instance"),
    ]  # fmt: skip


def _plural_parts(parts: int) -> str:
    return f"and {words.plural(parts, 'part')} (MIG)" if parts else ""


def _answer(context: PageContext) -> None:
    """The question, answered in words."""
    result: Gpus = ask("gpus", context.selection).result
    hosts: list[HostRow] = ask("hosts", context.selection).result.hosts
    ailing = [row for row in result.gpus if _ails(row)]
    if not result.gpus:
        st.markdown(f"**No GPU is watched.** :gray[{escape.markdown(result.told) if result.told else MISSING}]")
    elif not ailing:
        st.markdown(well_in_words(result.gpus))
    for row in ailing[:_SAID]:
        st.markdown(f"**{escape.markdown(_named(row))}**: {escape.markdown(_ails(row))}")
    for text in starved_in_words(hosts):
        st.markdown(text)


def well_in_words(gpus: Sequence[GpuRow]) -> str:
    """What GPUs do of which none ails; what none of them tells is not said to be well."""
    whole = [row for row in gpus if not row.parent]
    active = [row.activity_ratio for row in gpus if row.activity_ratio is not None]
    power = [row.power_watts for row in whole if row.power_watts is not None]
    does = [f"{words.ratio(sum(active) / len(active))} active"] if active else []
    does += [f"at {words.count(sum(power))} W"] if power else []
    quiet = ["none stands out"] if len(gpus) >= LEAST else []
    quiet += ["none was slowed down"] if any(row.throttled_ratio is not None for row in gpus) else []
    quiet += ["no fault was told"] if any(row.xids is not None for row in gpus) else []
    what = f" {' '.join(does)}" if does else ""
    return f"**{words.plural(len(whole), 'GPU')}**{what}{': ' if quiet else ''}{', '.join(quiet)}."


def starved_in_words(hosts: Sequence[HostRow]) -> list[str]:
    """Which engines lack a CPU or memory, a line each in Markdown; that none does where that is known; else nothing."""
    told = []
    for row in hosts:
        lacks = []
        if row.oom_kills:
            kills = "a process" if row.oom_kills == 1 else f"{row.oom_kills:.0f} processes"
            lacks.append(f"the kernel killed {kills} for lack of memory")
        if (row.delay_ratio or 0.0) >= _STARVED:
            lacks.append(f"its threads waited {words.seconds(row.delay_ratio)} a second for a CPU")
        if (row.throttled_ratio or 0.0) >= _STARVED:
            lacks.append(f"its CPU limit held it back {words.seconds(row.throttled_ratio)} a second")
        if (row.open_files_ratio or 0.0) >= _FULL:
            whose = escape.markdown(row.open_files_process)
            lacks.append(f"{whose} had {files_in_words(row)} files open: at its limit it takes no connection")
        if lacks:
            told.append(f"**{escape.markdown(row.instance or row.node)}**: {'; '.join(lacks)}")
    known = [row.delay_ratio for row in hosts if row.delay_ratio is not None]
    if not told and known:
        return [f"**No engine is starved**: at most {words.seconds(max(known))} a second without a CPU."]
    return told[:_SAID]


def files_in_words(row: HostRow) -> str:
    """Open files against what is allowed: ``812 of 1,024``; the number alone where nobody says the limit."""
    if row.open_files is None:
        return words.NOTHING
    allowed = "" if row.open_files_limit is None else f" of {row.open_files_limit:,.0f}"
    return f"{row.open_files:,.0f}{allowed}"


def _named(row: GpuRow) -> str:
    whose = f" of {', '.join(row.instances)}" if row.instances else ""
    return f"GPU {row.index} on {row.node or 'its machine'}{whose}"


def _ails(row: GpuRow) -> str:
    told = []
    if row.xids:
        told.append(f"{words.plural(row.xids, 'fault')} (Xid)")
    if row.ecc_uncorrected:
        told.append(f"{words.plural(row.ecc_uncorrected, 'uncorrected memory error')}")
    if row.remap_pending:
        told.append("a memory row waits for a reset to be replaced")
    if row.throttled_ratio:
        told.append(f"slowed down {words.ratio(row.throttled_ratio)} of the time by {', '.join(row.throttled_by)}")
    if row.stands_out:
        told.append(row.stands_out)
    return "; ".join(told)


def _gpu_table(context: PageContext) -> None:
    answer = ask("gpus", context.selection)
    gpus: list[GpuRow] = answer.result.gpus
    if not gpus:
        return
    st.markdown("## GPUs, what stands out first")
    frame = pd.DataFrame([
        {
            "GPU": row.index,
            "Machine": row.node,
            "Instance": ", ".join(row.instances) or words.NOTHING,
            "Stands out": _ails(row),
            "Activity %": percent(row.activity_ratio),
            "Occupancy %": percent(row.sm_occupancy_ratio),
            "Tensor %": percent(row.tensor_active_ratio),
            "Memory bandwidth %": percent(row.dram_active_ratio),
            "Memory %": percent(row.memory_used_ratio),
            "Power, W": row.power_watts,
            "Limit, W": row.power_limit_watts,
            "Tokens, /s": row.tokens_per_second,
            "Tokens per watt": row.tokens_per_watt,
            "Slowed down %": percent(row.throttled_ratio),
            "Hottest, °C": row.temperature_celsius,
            "Memory, °C": row.memory_temperature_celsius,
            "SM clock, MHz": None if row.sm_clock_hertz is None else row.sm_clock_hertz / 1e6,
            "Links, GB/s": _gigabytes(row.pcie_bytes_per_second, row.nvlink_bytes_per_second),
            "Product": row.name,
            "UUID": row.gpu,
        }
        for row in gpus
    ])  # fmt: skip
    table(frame, "gpus", wide=("Stands out",), helps={
        "Stands out": "Against the median of GPUs of the same product: more than a tenth, and three deviations",
        "Links, GB/s": "PCIe and NVLink, both ways together",
    })  # fmt: skip
    foot("gpus", answer, rows=gpus)


def _gigabytes(*rates: float | None) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) / 1e9 if known else None


def _host_table(context: PageContext) -> None:
    answer = ask("hosts", context.selection)
    hosts: list[HostRow] = answer.result.hosts
    st.markdown("## Engines on their machines, who waited most first")
    if not hosts:
        empty(answer.state, MISSING_HOSTS, answer.coverage)
        return
    frame = pd.DataFrame([
        {
            "Instance": row.instance,
            "Machine": row.node,
            "CPU, cores": row.cpu_cores,
            "Waited for CPU, s/s": row.delay_ratio,
            "Held by limit, s/s": row.throttled_ratio,
            "CPU limit, cores": row.quota_cores,
            "Stuck %": percent(row.stuck_ratio),
            "Taken off CPU, /s": row.involuntary_switches_per_second,
            "Memory, GB": None if row.rss_bytes is None else row.rss_bytes / 1e9,
            "Memory of limit %": percent(row.memory_of_limit_ratio),
            "Killed": row.oom_kills,
            "Major faults, /s": row.major_faults_per_second,
            "Open files": files_in_words(row),
            "Open files of limit %": percent(row.open_files_ratio),
            "Up for": words.seconds(row.uptime_seconds),
            "Machine CPU %": percent(row.cpu_usage_ratio),
            "CPU pressure %": percent(row.cpu_pressure_ratio),
            "Memory pressure %": percent(row.memory_pressure_ratio),
            "I/O pressure %": percent(row.io_pressure_ratio),
            "Network, MB/s": None if row.network_bytes_per_second is None else row.network_bytes_per_second / 1e6,
        }
        for row in hosts
    ])  # fmt: skip
    table(frame, "hosts", helps={
        "Waited for CPU, s/s": "Time that its threads could have run and no core was free, all together",
        "Held by limit, s/s": "Time that the CPU limit of its cgroup held its tasks back",
        "Stuck %": "Share of samples with a process stopped or waiting for a device",
        "Taken off CPU, /s": "Involuntary context switches of all its threads",
        "Memory, GB": "What all its processes hold, mean",
        "Open files of limit %": "Of the process that was closest to its limit, when it was closest",
    })  # fmt: skip
    foot("hosts", answer, rows=hosts)
