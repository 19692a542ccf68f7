"""What all accounts of one edge share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.tap.counters import Counters
    from agent.tap.limits import Limits
    from agent.tap.open_requests import OpenRequests
    from agent.tap.tenants import BoundedNames, Tenants


class Books(Protocol):
    """What all accounts of one edge share (``agent.tap.core.Core`` is a tap's)."""

    @property
    def counters(self) -> Counters:
        """Own health."""
        ...

    @property
    def tenants(self) -> Tenants:
        """Finds who asked."""
        ...

    @property
    def models(self) -> BoundedNames:
        """Bounds the names of models."""
        ...

    @property
    def limits(self) -> Limits:
        """Bounds of one connection."""
        ...

    @property
    def record_probes(self) -> bool:
        """Whether health probes get a record too."""
        ...

    @property
    def sample(self) -> bool:
        """Whether what a caller did not sample is sent on as sampled."""
        ...

    @property
    def open(self) -> OpenRequests:
        """Requests whose record is not written yet."""
        ...
