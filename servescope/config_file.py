"""The configuration file of everything: its sections, checked one by one and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from base import yamlfile
from base.errors import ConfigError
from base.settings import EACH, MustExist, Port, marked
from base.yamlfile import FileError, YamlFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

Location = tuple[str | int, ...]
_Mark = TypeVar("_Mark", bound=Port | MustExist)
SECTIONS: Final = ("agent", "collector", "alerts", "dashboard")


def read_settings(path: Path | None, *, check: bool = True, files: bool = False) -> dict[str, Any]:
    """The sections of ``servescope.yaml`` as plain mappings; an absent path is an empty file.

    Args:
        path: The file.
        check: Whether each section is checked against its package's own settings.
        files: Whether the keys, passwords and certificates that it names must be there.

    Raises:
        ConfigError: The file can't be read, has a section that is unknown, or fields that are wrong; names them all.
    """
    if path is None:
        return {}
    file = yamlfile.read(path)
    faults = list(_strangers(file))
    if check:
        faults += _wrong(file)
    if files:
        faults += _unreadable(file)
    if faults:
        raise FileError(list(dict.fromkeys(faults)))  # a key given twice is a fault of every section
    sections = {name: file.section(name) for name in SECTIONS}
    return {name: found for name, found in sections.items() if found} | {
        k: v for k, v in file.data.items() if k == "data"
    }


def _strangers(file: YamlFile) -> Iterator[str]:
    """Faults of the top level: what is neither a section nor the data folder."""
    for name in SECTIONS:
        try:
            file.section(name)
        except FileError as error:
            yield from error.faults
            if not isinstance(file.data, dict):
                return
    for name in file.data:
        if name not in {*SECTIONS, "data"}:
            yield f"{file.fault((name,))}: is not a section: there are {', '.join(sorted(SECTIONS))} and data"
    if not isinstance(file.data.get("data", ""), str):
        yield f"{file.fault(('data',))}: must be the path of a folder"


def _models() -> dict[str, type[BaseModel]]:
    """The settings of each section, by their own package."""
    from agent.config import AgentConfig  # noqa: PLC0415 - each package is an extra of its own
    from alerts.config import AlertsConfig  # noqa: PLC0415 - as above
    from collector.config import CollectorConfig  # noqa: PLC0415 - as above
    from dashboard.config import DashboardConfig  # noqa: PLC0415 - as above

    return {"agent": AgentConfig, "collector": CollectorConfig, "alerts": AlertsConfig, "dashboard": DashboardConfig}


def named_ports() -> dict[str, tuple[str, str]]:
    """Section and setting of each port that the parts listen on, by its name; null there: nothing listens."""
    return {
        mark.name: (section, place[0])
        for section, model in _models().items()
        for place, mark in marked(model, Port)
        if mark.name
    }


def _wrong(file: YamlFile) -> Iterator[str]:
    """Faults of the sections, each by its package's own settings, and of what they say together."""
    for section, model in _models().items():
        try:
            yamlfile.checked(file, section, model)
        except FileError as error:
            yield from error.faults
    yield from _ports_twice(file)


def _ports_twice(file: YamlFile) -> Iterator[str]:
    """Faults of ports that the configuration gives to two parts."""
    taken: dict[int, str] = {}
    # The parts' own before those of entries in lists, which are easier to move.
    for place, _ in sorted(_marked(file, Port), key=lambda found: len(found[0])):
        port = _at(file, place)
        if isinstance(port, int) and port > 0:  # 0 takes a free one
            if port in taken:
                yield f"{file.fault(place)}: port {port} is {taken[port]}'s already"
            taken.setdefault(port, file.place(place)[0])


def _marked(file: YamlFile, kind: type[_Mark]) -> Iterator[tuple[Location, _Mark]]:
    """The places in a file of all settings that carry such a mark."""
    for section, model in _models().items():
        for place, mark in marked(model, kind):
            yield from ((found, mark) for found in _each(file, (section,), place))


def _each(file: YamlFile, at: Location, rest: tuple[str, ...]) -> Iterator[Location]:
    """Where ``rest`` leads from a place on: to one place for each entry of the lists on its way."""
    if not rest:
        yield at
    elif rest[0] == EACH:
        entries = _at(file, at)
        for index in range(len(entries) if isinstance(entries, list) else 0):
            yield from _each(file, (*at, index), rest[1:])
    else:
        yield from _each(file, (*at, rest[0]), rest[1:])


def _at(file: YamlFile, location: Location) -> Any:
    """What stands at a place of a file; None where nothing does, or something else than leads there."""
    value = file.data
    for key in location:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def _unreadable(file: YamlFile) -> Iterator[str]:
    """Faults of the keys, passwords and certificates that the configuration names."""
    for location, mark in _marked(file, MustExist):
        value = _at(file, location)
        if not isinstance(value, str) or not value:
            continue
        path = Path(value)
        try:
            path = path.expanduser() if mark.home else path
            path.open("rb").close()
        except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody
            # Whoever writes the key itself there must not see it again.
            what = value if mark.shown else "the file"
            yield f"{file.fault(location)}: {what} can't be read: {getattr(error, 'strerror', '') or error}"


def slo_file(settings: Mapping[str, Any], config: Path | None) -> Path | None:
    """``alerts.slos`` of the configuration; a relative path is looked for beside the configuration, then here.

    Every part is told the same absolute path: each has a folder of its own in which it would look.

    Raises:
        ConfigError: It names no file.
    """
    named = (settings.get("alerts") or {}).get("slos")
    if not named:
        return None
    given = Path(str(named)).expanduser()
    for path in (*([config.absolute().parent / given] if config is not None else []), given.absolute()):
        if path.is_file():
            return path
    raise ConfigError(f"alerts.slos names {named}, which is no file", "Name an SLO file, relative to the configuration")
