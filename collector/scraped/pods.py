"""Which model server runs in which pod, as pages of one sender tell: by that a GPU of another page has its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOLD: Final = (Resource.DEPLOYMENT, Resource.INSTANCE, Resource.VERSION, Resource.ENGINE)


class Pods:
    """Servers by their pods."""

    def __init__(self) -> None:
        self._servers: dict[str, dict[str, Mapping[str, str]]] = {}
        self._pods: dict[str, str] = {}

    def put(self, whose: Mapping[str, str]) -> None:
        """A server, by the attributes of its samples; one whose pod nobody tells is left out."""
        instance = whose[Resource.INSTANCE]
        self.forget(instance)
        if pod := whose.get(Resource.POD):
            self._pods[instance] = pod
            self._servers.setdefault(pod, {})[instance] = dict(whose)

    def forget(self, instance: str) -> None:
        """Nothing came of a server for long."""
        servers = self._servers.get(pod := self._pods.pop(instance, ""), {})
        servers.pop(instance, None)
        if not servers:
            self._servers.pop(pod, None)

    def of(self, pod: str, namespace: str = "") -> dict[str, str]:
        """Attributes of the server in a pod; none where it has none or several, or is another namespace's."""
        servers = self._servers.get(pod, {}) if pod else {}
        there = [
            one for one in servers.values() if not namespace or one.get(Resource.NAMESPACE, namespace) == namespace
        ]
        return {name: there[0][name] for name in _TOLD if there[0].get(name)} if len(there) == 1 else {}
