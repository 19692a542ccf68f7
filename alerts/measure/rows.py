"""What alerts need of a store: `collector.store.client.Store` is one, and a test's pretended one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.store.asker import Asker


class Rows(Protocol):
    """What is needed of a store."""

    @property
    def asker(self) -> Asker:
        """Who asks."""
        ...

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a query; raises a ServescopeError when the store is away or refuses."""
        ...


class Living(Rows, Protocol):
    """What is needed of a store that is watched."""

    def alive(self) -> None:
        """Return where it answers; raises a ServescopeError where it is away or refuses."""
