"""Pages of programs that export GPUs' figures, and how each is read.

An exporter is a file of ``agent/gpu_exporters/`` with a ``TABLE``. What it shows becomes the same rows that this agent
makes of the driver itself, so that whoever has an exporter already needs no access to the driver.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from agent import gpu_exporters
from agent.engine_families import is_common
from agent.gpu_pods import MOST_HOLDINGS, Holding
from agent.xids import meaning
from base import found
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.pages.page import Layout, Page

TOTALS: Final = frozenset({"hw.energy"})
"""Counters by OpenTelemetry's own conventions."""
MOST_GPUS: Final = 1024
"""GPUs and parts of one page."""
POWER_CAP: Final = 0x4
THERMAL: Final = 0x20
"""NVML's bits of reasons to slow down."""
_PART_OF_NAME: Final = " MIG "
_ABSENT: Final = frozenset({
    *(float(2**63 - 16 + code) for code in range(4)), *(float(2**47 + code) for code in range(4)),
    *(float(2**31 - 16 + code) for code in range(4)),
})  # fmt: skip
"""How DCGM writes *blank*, *not found*, *not supported*, *not permitted*: integers of 64 and 32 bits, and doubles."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose a line is.

    Attributes:
        gpu: UUID, or what stands for one.
        parent: Of a part: the GPU that it is of.
        name: Product.
        index: Number on its machine.
        node: Machine.
        pod, namespace: Pod that has it.
        driver: Version of the driver.
    """

    gpu: str
    parent: str = ""
    name: str = ""
    index: str = ""
    node: str = ""
    pod: str = ""
    driver: str = ""
    namespace: str = ""

    def whole(self) -> Whose:
        """The GPU that a part is of; itself where it is none."""
        if not self.parent:
            return self
        name, index = self.name.partition(_PART_OF_NAME)[0], self.index.partition(":")[0]
        return replace(self, gpu=self.parent, parent="", name=name, index=index, pod="", namespace="")

    def with_(self, other: Whose) -> Whose:
        """What this leaves open as another says of the same GPU."""
        open_here = {one.name: getattr(other, one.name) for one in fields(self) if not getattr(self, one.name)}
        return replace(self, **open_here) if any(open_here.values()) else self

    def part(self, gpu: str, number: str, profile: str = "") -> Whose:
        """A part of this GPU."""
        name = f"{self.name}{_PART_OF_NAME}{profile}".strip() if profile else self.name
        return replace(self, gpu=gpu, parent=self.gpu, index=f"{self.index}:{number}", name=name)

    @property
    def holding(self) -> Holding | None:
        """That its pod has it; None of nobody's."""
        return Holding(self.gpu, self.namespace, self.pod) if self.pod else None

    def attributes(self) -> dict[str, str]:
        """As attributes of a resource."""
        told = {
            "hw.type": "gpu", "hw.id": self.gpu, "hw.parent": self.parent, "hw.name": self.name, "hw.index": self.index,
            "hw.driver_version": self.driver, Resource.NODE: self.node, Resource.POD: self.pod,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """What a family's lines say.

    Attributes:
        name: Name of the figure here; one that begins with an underscore is for the table's ``finish`` alone.
        factor: Its unit over theirs.
        labels: Lines that have these alone; of several the mean.
        whole: Each part of a GPU repeats what the whole has.
    """

    name: str
    factor: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False


@dataclass(slots=True)
class Before:
    """What was known of a GPU at the last page: its figures, and when that was (seconds)."""

    at: float
    values: dict[str, float]
    faults: int = 0


@dataclass(frozen=True, slots=True)
class GpuTable:
    """How one exporter's page is read.

    Attributes:
        exporter: Its name.
        marks: Families by which its page is told; `whose` must know the lines too.
        families: Family → figures, likeliest first where several say the same.
        ignored: Families, or beginnings of families that end in ``*``, with the reason why none is read.
        whose: Whose a line is, by its labels; None for nobody's.
        finish: Makes of what was read what is told; ``before`` is None at first.
        fault: Figure that is the number of the last fault (an Xid), "" where there is none.
    """

    exporter: str
    marks: frozenset[str]
    families: Mapping[str, tuple[Figure, ...]]
    ignored: Mapping[str, str]
    whose: Callable[[Mapping[str, str]], Whose | None]
    finish: Callable[[dict[str, float], Before | None, float], dict[str, float]]
    fault: str = ""

    def recognises(self, layout: Layout) -> bool:
        """Whether a page is this exporter's."""
        return any(one.name in self.marks and self.whose(one.labels) is not None for one in layout.series)

    def knows(self, family: str) -> bool:
        """Whether a family is read, ignored by name, or of what stands on every program's page."""
        return (
            family in self.families
            or is_common(family)
            or any(family.startswith(name[:-1]) if name.endswith("*") else family == name for name in self.ignored)
        )


@cache
def gpu_tables() -> Mapping[str, GpuTable]:
    """Every exporter's table, by its name.

    Raises:
        NotFoundError: A file of ``agent/gpu_exporters/`` has none.
    """
    return {table.exporter: table for table in found.members(gpu_exporters, "TABLE").values()}


class Row(NamedTuple):
    """One GPU, or one part of one, at one page.

    Attributes:
        whose: Which.
        values: By figure.
        fault: Number of a fault that is new since the page before, 0 for none.
    """

    whose: Whose
    values: dict[str, float]
    fault: int


def fault_told(row: Row) -> str:
    """A row's new fault, in a sentence."""
    return f"GPU {row.whose.index} ({row.whose.gpu}) reports Xid {row.fault}: {meaning(row.fault)}"


class GpuReader:
    """Reads an exporter's pages, one after the other.

    Args:
        table: The exporter's.

    Attributes:
        held: Which pods have which GPUs, by the last page; where sharing is told, a line of each pod.
        passed_over: GPUs, and pods that have one, beyond those that are told of a page.
    """

    def __init__(self, table: GpuTable) -> None:
        self.table = table
        self._layout: Layout | None = None
        self._places: list[tuple[int, str, Figure]] = []
        self._whose: dict[str, Whose] = {}
        self._holders: dict[Holding, list[int]] = {}
        self._before: dict[str, Before] = {}
        self.held: tuple[Holding, ...] = ()
        self.passed_over = 0

    def read(self, page: Page, at: float) -> list[Row]:
        """Rows of a page.

        Args:
            page: What was shown.
            at: When, in seconds of any clock that goes on.
        """
        if page.layout is not self._layout:
            self._lay_out(page.layout)
        read: dict[str, dict[Figure, list[float]]] = {}
        for slot, gpu, figure in self._places:
            value = page.values[slot]
            if value not in _ABSENT and math.isfinite(told := value * figure.factor):
                read.setdefault(gpu, {}).setdefault(figure, []).append(told)
        # a series that ended stands on one more page of a scraper's, as no number
        held = [one for one, slots in self._holders.items() if not all(math.isnan(page.values[slot]) for slot in slots)]
        self.held = tuple(held[:MOST_HOLDINGS])
        self.passed_over = max(0, len(read) - MOST_GPUS) + max(0, len(held) - MOST_HOLDINGS)
        rows, kept = [], {}
        for gpu, figures in list(read.items())[:MOST_GPUS]:
            raw: dict[str, float] = {}
            for figure, several in figures.items():
                raw.setdefault(figure.name, math.fsum(value / len(several) for value in several))
            before = self._before.get(gpu)
            faults, new = self._faults(raw, before)
            values = self.table.finish(raw, before, at)
            if self.table.fault in raw:
                values["xid_total"] = float(faults)
            kept[gpu] = Before(at, raw, faults)
            if values:
                rows.append(Row(self._whose[gpu], values, new))
        self._before = kept
        return rows

    def _faults(self, raw: Mapping[str, float], before: Before | None) -> tuple[int, int]:
        """Faults so far, and the number of one that is new: the last one's number is another than before."""
        if before is None:
            return 0, 0
        number = int(raw.get(self.table.fault, 0.0))
        if not number or number == int(before.values.get(self.table.fault, number)):
            return before.faults, 0
        return before.faults + 1, number

    def _lay_out(self, layout: Layout) -> None:
        self._layout, self._places, self._whose, self._holders = layout, [], {}, {}
        order = {family: place for place, family in enumerate(self.table.families)}
        for slot, one in enumerate(layout.series):
            figures = self.table.families.get(one.name, ())
            whose = self.table.whose(one.labels) if figures else None
            if whose is None:
                continue
            if whose.holding is not None:
                self._holders.setdefault(whose.holding, []).append(slot)
            for figure in figures:
                if any(one.labels.get(name) != value for name, value in figure.labels.items()):
                    continue
                of = whose.whole() if figure.whole else whose
                self._whose[of.gpu] = self._whose.get(of.gpu, of).with_(of)
                self._places.append((slot, of.gpu, figure))
        for gpu, pods in Counter(one.gpu for one in self._holders).items():
            if pods > 1 and gpu in self._whose:  # a row names one pod
                self._whose[gpu] = replace(self._whose[gpu], pod="", namespace="")
        # families that say the same are read in the table's order, whatever the page's
        self._places.sort(key=lambda place: order[layout.series[place[0]].name])


def reader_of(page: Page) -> GpuReader | None:
    """A reader for a page that is some exporter's, else None."""
    table = next((one for one in gpu_tables().values() if one.recognises(page.layout)), None)
    return GpuReader(table) if table is not None else None
