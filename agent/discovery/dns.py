"""Servers behind a name: the addresses (A, AAAA) of one, or the places that its SRV records name.

The name is asked again when its answer's time to live is over, every half minute at the latest. A resolver that fails
takes nothing away. An address that the name has no longer has left; but a server that fell silent before its address
went is watched for a minute more, since DNS drops those that crashed as it drops those that were to go (decision 0126).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import structlog
from pydantic import Field, field_validator, model_validator

from agent.finder import Elsewhere, Finder, Surroundings
from agent.target import Target
from base.formats import rounded
from base.urls import Host  # noqa: TC001 - pydantic reads it at run time
from base.yamlfile import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.finder import Tell

SOONEST_SECONDS: Final = 5.0
"""A time to live that is shorter does not have the resolver asked more often."""
LINGER_SECONDS: Final = 60.0
"""Longer than any rule waits before a server that went down pages."""
_PATIENCE_SECONDS: Final = 5.0
_TOLD: Final = 200

log = structlog.get_logger()


class Settings(Elsewhere):
    """Servers behind a name of the DNS."""

    kind: Literal["dns"]
    name: Host = Field(description="Name that is asked for, such as a headless service's.")
    record: Literal["address", "srv"] = Field(default="address", description="`address` (A and AAAA) or `srv`.")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of each server; needed unless SRV records tell it."
    )
    deployment: str = Field(default="", max_length=100, description="Their deployment; empty: the name's first part.")
    every_seconds: float = Field(default=30.0, ge=1, le=3600, description="Longest time between two looks.")
    resolver: str = Field(default="", description="ADDRESS or ADDRESS:PORT of the resolver; empty: the system's.")

    @field_validator("resolver")
    @classmethod
    def _check_resolver(cls, value: str) -> str:
        if value:
            address_of(value)
        return value

    @model_validator(mode="after")
    def _check_port(self) -> Self:
        if self.record == "address" and self.port is None:
            raise FieldError(("port",), "is needed: addresses name no port (record: srv does)")
        if self.record == "srv" and self.port is not None:
            raise FieldError(("port",), "is told by SRV records: leave it out, or set record: address")
        return self

    def finder(self, around: Surroundings) -> Dns:
        """One that asks for the name."""
        return Dns(self, around)


class Dns(Finder):
    """Asks for a name, again and again.

    Args:
        settings: What to ask for.
        around: Tells whether a server that the name lost answers.
        soonest_seconds: Shortest time between two looks.
    """

    def __init__(self, settings: Settings, around: Surroundings, soonest_seconds: float = SOONEST_SECONDS) -> None:
        super().__init__(f"dns:{settings.name}")
        self._settings, self._around, self._soonest = settings, around, soonest_seconds
        self._deployment = settings.deployment or settings.name.partition(".")[0]
        self._kinds = ("SRV",) if settings.record == "srv" else ("A", "AAAA")
        self._places: dict[str, list[tuple[str, int]]] = {}
        self._known: dict[str, Target] = {}
        self._until: dict[str, float] = {}
        self._looked = False

    async def run(self, tell: Tell) -> None:
        """Tell what the name has, look by look."""
        resolver = self._resolver()
        while True:
            wait = await self._look(resolver)
            if self._looked:
                tell(self.settle(self._targets(), time.monotonic()))
            await asyncio.sleep(wait)

    def problems(self) -> Iterable[str]:
        """The resolver's failure; a name that has nothing."""
        yield from super().problems()
        if self._looked and not self.error and not self._known:
            yield f"{self.name} has no {' and no '.join(self._kinds)} record: no server is watched by it"

    def settle(self, named: Mapping[str, Target], now: float) -> list[Target]:
        """What is to be watched: what the name has, and for a while what was silent when the name lost it.

        Args:
            named: What it has, by instance.
            now: Any steady clock, seconds.
        """
        kept = dict(named)
        for instance, target in self._known.items():
            if instance in named:
                continue
            if instance not in self._until and self._around.answers(instance) is False:
                self._until[instance] = now + LINGER_SECONDS
                how_long = rounded(round(LINGER_SECONDS))
                log.info("target_lingers", by=self.name, instance=instance, effect=f"watched for {how_long} more")
            if now < self._until.get(instance, now):
                kept[instance] = target
        self._known = kept
        self._until = {name: until for name, until in self._until.items() if name in kept and name not in named}
        return list(kept.values())

    def _targets(self) -> dict[str, Target]:
        found: dict[str, Target] = {}
        settings = self._settings
        for address, port in (place for kind in self._kinds for place in self._places.get(kind, ())):
            plain = address.replace(":", "-").strip("-") or "any"
            name = address.partition(".")[0] if settings.record == "srv" else f"{self._deployment}-{plain}:{port}"
            if name in found:
                name = f"{address}:{port}"
            url, page = settings.urls(address, port)
            found[name] = Target(
                name[:100],
                self._deployment,
                engine=settings.engine_id,
                url=url,
                metrics_url=page,
                role=settings.role,
                access=settings.access,
            )
        return found

    async def _look(self, resolver: Any) -> float:
        """Ask for each kind of record; seconds until the next look."""
        problem, lives = "", [self._settings.every_seconds]
        for kind in self._kinds:
            try:
                self._places[kind], life = await self._ask(resolver, kind)
                lives.append(life)
            except (LookupError, OSError) as error:
                problem = problem or f"{kind}: {str(error) or type(error).__name__}"[:_TOLD]
        if problem:
            self.failed(problem)
        else:
            self.succeeded()
        self._looked = self._looked or not problem
        return max(self._soonest, min(lives))

    async def _ask(self, resolver: Any, kind: str) -> tuple[list[tuple[str, int]], float]:
        """Host and port of each record, and for how many seconds they hold.

        Raises:
            LookupError: The resolver has no answer; that there is no such name is one.
            OSError: It can't be reached.
        """
        from dns.exception import DNSException  # noqa: PLC0415 - for those who ask
        from dns.resolver import NXDOMAIN, NoAnswer  # noqa: PLC0415

        try:
            answer = await resolver.resolve(self._settings.name, kind, search=True, lifetime=_PATIENCE_SECONDS)
        except (NXDOMAIN, NoAnswer):
            return [], self._settings.every_seconds
        except DNSException as error:
            raise LookupError(str(error)) from error
        life = float(answer.rrset.ttl) if answer.rrset is not None else self._settings.every_seconds
        if kind == "SRV":
            named = [(str(one.target).rstrip("."), int(one.port)) for one in answer]
            return sorted({place for place in named if place[0]}), life
        port = self._settings.port or 0
        return sorted({(str(one.address), port) for one in answer}), life

    def _resolver(self) -> Any:
        from dns.asyncresolver import Resolver  # noqa: PLC0415 - for those who ask

        resolver = Resolver(configure=not self._settings.resolver)
        if self._settings.resolver:
            address, resolver.port = address_of(self._settings.resolver)
            resolver.nameservers = [address]
        return resolver


def address_of(resolver: str) -> tuple[str, int]:
    """IP address and port of ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        ValueError: It is neither.
    """
    address, mark, port = resolver.rpartition(":")
    if not mark or (":" in address and not address.startswith("[")):
        address, port = resolver, "53"
    try:
        number = int(port)
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:  # noqa: PLR2004 - ports
        raise ValueError(f"{resolver!r} is no address of a resolver such as 10.96.0.10 or 127.0.0.1:5353")
    return address.strip("[]"), number
