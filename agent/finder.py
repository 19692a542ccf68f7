"""What every kind of discovery is, and what one is made from.

A kind is a file of ``agent/discovery/`` with a class ``Settings``, an `Entry` whose field ``kind`` is the file's name
and which makes a `Finder`. Nothing lists them, and none knows of another. A finder tells, each time that changes, of
all targets that it knows: what it names no longer has left on purpose, and is no server that went down (decision 0126).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from agent import discovery
from agent.access import AUTHORIZATION, FRAMING, HEADER, VARIABLE, Access
from agent.engine_table import tables
from base import found
from base.settings import MustExist
from base.yamlfile import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from agent.target import Place, Target

    Tell = Callable[[Sequence[Target]], None]
    """Takes all targets that a finder knows of."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a finder may look at.

    Args:
        place: Where this agent runs.
        watched: The targets that are watched, whoever named them.
        ports: Ports of this agent's own.
        answers: Whether an instance's last page came; None before the first was asked for.
    """

    place: Place
    watched: Callable[[], Sequence[Target]]
    ports: Callable[[], Collection[int]] = lambda: ()
    answers: Callable[[str], bool | None] = lambda _instance: None


class Finder:
    """Looks for targets.

    Args:
        name: Who says that a target is there, such as ``dns:chat.serving``: in events, logs and metrics.

    Attributes:
        failures: Looks that failed since the start.
        error: Why the last look failed; empty once one did not. What was known stays known meanwhile.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        self.error = ""

    async def run(self, tell: Tell) -> None:
        """Tell of all targets, at once and each time that changes, until cancelled."""
        raise NotImplementedError

    def problems(self) -> Iterable[str]:
        """What is wrong, in plain English."""
        if self.error:
            yield f"{self.name} can't be asked for its servers, those that were known stay: {self.error}"

    def failed(self, error: str) -> None:
        """A look failed: it is counted, and told once."""
        self.failures += 1
        if not self.error:
            log.warning("discovery_failed", by=self.name, error=error)
        self.error = error

    def succeeded(self) -> None:
        """A look went well."""
        if self.error:
            log.info("discovery_works_again", by=self.name)
        self.error = ""


class Keyed(BaseModel):
    """Settings of servers whose pages may want a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(default="auto", description="Engine id, or auto to read it off the metrics page.")
    key_file: Annotated[Path | None, MustExist(home=True, shown=False)] = Field(
        default=None, repr=False, description="File with the key that its pages want."
    )
    key_env: str = Field(default="", repr=False, description="Environment variable that holds that key instead.")
    key_header: str = Field(
        default=AUTHORIZATION, description="Header that carries it: authorization as `Bearer KEY`, others plain."
    )

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, value: str) -> str:
        if value not in {"", "auto"} and value not in tables():
            raise ValueError(f"is no engine known here: there are {', '.join(sorted(tables()))}, and auto")
        return value

    @field_validator("key_env")
    @classmethod
    def _check_variable(cls, value: str) -> str:
        if value and not VARIABLE.fullmatch(value):
            raise ValueError("must be the name of an environment variable, not the key itself")
        return value

    @field_validator("key_header")
    @classmethod
    def _check_header(cls, value: str) -> str:
        if not HEADER.fullmatch(value) or value.lower() in FRAMING:
            raise ValueError("must be the name of a header that can carry a key, such as authorization or x-api-key")
        return value

    @model_validator(mode="after")
    def _check_one_key(self) -> Self:
        if self.key_file is not None and self.key_env:
            raise FieldError(("key_env",), "give key_file or key_env, not both")
        return self

    @property
    def engine_id(self) -> str | None:
        """The engine; None reads it off the page."""
        return None if self.engine in {"", "auto"} else self.engine

    @property
    def access(self) -> Access:
        """Where the key is."""
        return Access(self.key_file, self.key_env, self.key_header)


class Entry(BaseModel):
    """One entry of ``agent.discovery``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    def finder(self, around: Surroundings) -> Finder:
        """What looks as this entry says."""
        raise NotImplementedError


class Elsewhere(Entry, Keyed):
    """An entry whose servers are told apart by address: how each is asked."""

    scheme: Literal["http", "https"] = Field(default="http", description="How each is asked.")
    metrics_path: str = Field(
        default="", pattern=r"^(/[!-~]*)?$", description="Path of the metrics page; empty derives it from the engine."
    )
    role: Literal["both", "prefill", "decode", "router"] = Field(default="both", description="What they serve.")

    def urls(self, host: str, port: int) -> tuple[str, str]:
        """Base URL and URL of the metrics page of the server at an address."""
        base = f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        return base, base + self.metrics_path if self.metrics_path else ""


@lru_cache(maxsize=8)
def _adapter(there: tuple[type[Entry], ...]) -> TypeAdapter[Any]:
    one_of: Any = Annotated[reduce(or_, there), Field(discriminator="kind")]
    return TypeAdapter(one_of)


def _of_its_kind(value: object) -> object:
    there = found.members(discovery, "Settings")
    return value if isinstance(value, Entry) else _adapter(tuple(there.values())).validate_python(value)


OneOfItsKind = Annotated[Entry, BeforeValidator(_of_its_kind)]
"""An entry of one of the kinds that are files of ``agent/discovery/``."""


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name like the one that is wanted which nobody has."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name
