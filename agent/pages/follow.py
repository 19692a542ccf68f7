"""What an agent tells of one server whose pages it reads one after the other: samples, and events on the way.

The same for a live server and for a recording: who gets the pages hands them over with their time, and is handed the
bodies to send.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from agent.otlp.encode import Moment, SampleEncoder, encode_event
from agent.pages.samples import Key
from base.vocabulary import EVENT_BROKEN, EVENT_MENDED, NO_LOSS, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.otlp.emit import Emit
    from agent.pages.contract import Breach
    from agent.pages.page import Page
    from agent.pages.samples import Scrape

_NOBODY: Final = Key("", "")
_POD: Final = {"pod": Resource.POD, "namespace": Resource.NAMESPACE, "node": Resource.POD_NODE}
"""What `instance_up` tells of a server's pod, by which its GPUs find it, and where that stands in its resource."""


class Follower:
    """Follows the pages of one server.

    Args:
        instance: Its name.
        whose: Attributes of its resource.
        told: Called with each event's name, its message and whether it is a warning.
    """

    def __init__(
        self, instance: str, whose: Mapping[str, str], told: Callable[[str, str, bool], None] | None = None
    ) -> None:
        self._instance, self._told = instance, told
        self._keys: tuple[Key, ...] = (_NOBODY,)
        self._up: bool | None = None
        self._first = True
        self._shown: Mapping[str, str] = {}
        self._inside: Mapping[str, str] = {}
        self._config: Mapping[str, str] = {}
        self._malformed = False
        self._good_ns = 0
        self.identify(whose)

    def identify(self, whose: Mapping[str, str]) -> None:
        """From now on the resource has these attributes."""
        self._whose = whose
        self._encoder = SampleEncoder(whose)

    @property
    def model(self) -> str:
        """The one model that the page shows, empty where it shows several or none."""
        names = {key.model for key in self._keys}
        return names.pop() if len(names) == 1 else ""

    def anew(self) -> Follower:
        """Another one of the same server, to which no page has been shown."""
        twin = copy.copy(self)
        twin._good_ns = 0  # noqa: SLF001
        return twin

    def moment(self, time_ns: int, took_seconds: float) -> Moment:
        """When a page was read, how long that took, and when the one before it was."""
        return Moment(time_ns, self._good_ns, took_seconds)

    def page(self, page: Page, scrape: Scrape, config: Mapping[str, str] | None, moment: Moment, emit: Emit) -> None:
        """The server answered with a page that was understood.

        Args:
            page: As it was read.
            scrape: What it says.
            config: The server's configuration; None: it has not been looked at again.
            moment: When.
            emit: Takes the bodies.
        """
        self._came_up(moment.time_ns, emit)
        if scrape.restarted:
            message = f"{self._instance} was restarted: its counters began anew"
            self.event("instance_restarted", message, moment.time_ns, emit)
        if config is not None:
            self._configure(config, self._inside, moment.time_ns, emit)
        self._check_faults(page, moment.time_ns, emit)
        for breach in scrape.breaches:
            self._breached(breach, moment.time_ns, emit)
        if scrape.samples:
            self._keys = tuple(sample.key for sample in scrape.samples)
            emit("metrics", self._encoder.encode(scrape.samples, moment))
        else:
            emit("metrics", self._encoder.encode_up(self._keys, moment))
        self._good_ns = moment.time_ns

    def learn(self, inside: Mapping[str, str] | None, time_ns: int, emit: Emit) -> None:
        """What the server's own process tells of its configuration; None: nothing so far."""
        if inside is not None and inside != self._inside:
            self._configure(self._shown, inside, time_ns, emit)

    def stranger(self, moment: Moment, emit: Emit) -> None:
        """The server answered with a page that nobody here can read: it is up, and that is all."""
        self._came_up(moment.time_ns, emit)
        emit("metrics", self._encoder.encode_up(self._keys, moment))

    def down(self, reason: str, time_ns: int, emit: Emit) -> bool:
        """The server did not answer with a page; whether that is new."""
        emit("metrics", self._encoder.encode_down(self._keys, Moment(time_ns)))
        if self._up is False:
            return False
        self._up = False
        message = f"{self._instance} does not answer with its metrics page: {reason}"
        self.event("instance_down", message, time_ns, emit, {"reason": reason}, warning=True)
        return True

    def event(
        self,
        event: str,
        message: str,
        time_ns: int,
        emit: Emit,
        details: Mapping[str, str] | None = None,
        *,
        warning: bool = False,
    ) -> None:
        """Something happened to the server."""
        if self._told is not None:
            self._told(event, message, warning)
        emit("logs", encode_event(self._whose, event, message, time_ns, details, warning=warning))

    def _came_up(self, time_ns: int, emit: Emit) -> None:
        if not self._up:
            details = {name: self._whose[word] for name, word in _POD.items() if word in self._whose}
            if self._first:
                details["first"] = "true"
            self._up, self._first = True, False
            self.event("instance_up", f"{self._instance} answers", time_ns, emit, details)

    def _configure(self, shown: Mapping[str, str], inside: Mapping[str, str], time_ns: int, emit: Emit) -> None:
        """Tell the configuration that the page shows and the process tells, and what of it changed.

        What either of them tells for the first time was so before.
        """
        known = set(self._inside)
        if self._shown and shown:
            known |= self._shown.keys() | shown.keys()
        before, self._config = self._config, {**shown, **inside}
        self._shown, self._inside = shown, inside
        if self._config == before or not self._config:
            return
        changed = sorted(key for key in known if before.get(key) != self._config.get(key))
        if changed:
            details = {key: f"{before.get(key, '')} → {self._config.get(key, '')}" for key in changed}
            message = f"The configuration of {self._instance} changed: {', '.join(changed)}"
            self.event("config_changed", message, time_ns, emit, details)
        self.event("instance_config", f"Configuration of {self._instance}", time_ns, emit, self._config)

    def _breached(self, breach: Breach, time_ns: int, emit: Emit) -> None:
        name = EVENT_MENDED if breach.mended else EVENT_BROKEN
        message = f"The metrics page of {self._instance}: {breach.message}"
        warning = not breach.mended and breach.kind not in NO_LOSS
        details = {"kind": breach.kind, "what": breach.what}
        self.event(name, message, time_ns, emit, details, warning=warning)

    def _check_faults(self, page: Page, time_ns: int, emit: Emit) -> None:
        if page.faults_total and not self._malformed:
            message = f"The metrics page of {self._instance} has {page.told()}"
            self.event("page_malformed", message, time_ns, emit, warning=True)
        self._malformed = page.faults_total > 0
