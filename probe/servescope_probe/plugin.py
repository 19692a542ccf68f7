"""vLLM's stat logger: called by the API server once an engine step, with what the engine says of it.

https://docs.vllm.ai/en/latest/design/plugin_system.html, group ``vllm.stat_logger_plugins``. vLLM wants a subclass of
its own class; without vLLM the module can be imported all the same.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from servescope_probe import settings, wire
from servescope_probe.sender import Sender, shared
from servescope_probe.steps import Steps, finished

log = logging.getLogger("servescope_probe")

_told: set[str] = set()
"""What was said in this process: there is a logger for each engine core."""
_CONFIG_SECONDS = 60.0
"""Time after which the configuration is told again: a datagram may be lost, and blocks are counted after the start."""


def _base() -> Any:
    try:
        from vllm.v1.metrics.loggers import StatLoggerBase  # noqa: PLC0415 - only vLLM's own process has it
    except Exception as error:
        if (
            "vllm" in sys.modules
        ):  # it starts without a plugin that can't be loaded, and not with one that is no subclass
            raise ImportError("servescope-probe does not know this version of vLLM: no step is told") from error
        return object
    return StatLoggerBase


class StepLogger(_base()):  # type: ignore[misc] # vLLM wants its own class, where there is one
    """Tells the agent of each step of one engine core, or of all of them where vLLM names the core at each call."""

    def __init__(self, vllm_config: Any = None, engine_index: Any = 0, *args: Any, **kwargs: Any) -> None:
        # Not super().__init__(): it is abstract, and has had several signatures.
        self._disabled = False
        self._cores: dict[int, Steps] = {}
        self._first = engine_index if isinstance(engine_index, int) else 0
        self._config = vllm_config
        self._config_due = 0.0
        self._config_told_to = -1
        try:
            self._sender = shared()
        except Exception as error:  # noqa: BLE001 - the server runs without us
            self._disable(error)
            return
        self._tell_config()

    def tell(self, sender: Sender) -> None:
        """Tell this one, instead of the process's own."""
        self._sender = sender
        self._config_told_to = -1

    def record(
        self,
        scheduler_stats: Any = None,
        iteration_stats: Any = None,
        mm_cache_stats: Any = None,
        engine_idx: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Take a step; ``engine_idx`` is the data-parallel rank."""
        if self._disabled or (scheduler_stats is None and iteration_stats is None):
            return
        try:
            # Before 0.11 the third argument was the index.
            rank = engine_idx if isinstance(engine_idx, int) else mm_cache_stats
            rank = rank if isinstance(rank, int) else self._first
            core = self._cores.get(rank)
            if core is None:
                core = self._cores[rank] = Steps(rank)
            for body in finished(iteration_stats):
                self._sender.put(wire.FINISHED, rank, body)
            step = core.pack(scheduler_stats, iteration_stats)
            # The last one before a rest: nothing may follow that would take it along.
            self._sender.put_record(step, now=getattr(scheduler_stats, "num_running_reqs", 1) == 0)
        except Exception as error:  # noqa: BLE001 - nothing of ours may be felt by the server
            self._disable(error)
            return
        self._tell_config()

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Called now and then: what is still held goes out."""
        if self._disabled:
            return
        self._tell_config()
        try:
            self._sender.flush()
        except Exception as error:  # noqa: BLE001 - as above
            self._disable(error)

    def log_engine_initialized(self, *args: Any, **kwargs: Any) -> None:
        """The cache's blocks are counted by then."""
        if not self._disabled:
            self._config_due = 0.0
            self._tell_config()

    def record_sleep_state(self, *args: Any, **kwargs: Any) -> None:
        """The page tells of it."""

    def _tell_config(self) -> None:
        """Tell the engine's configuration at the start, to each agent that comes, and every minute."""
        if self._config is None:
            return
        now = time.monotonic()
        if now < self._config_due and self._config_told_to == self._sender.connections:
            return
        try:
            self._sender.put(wire.CONFIG, self._first, settings.pack(self._config), now=True)
            self._config_due, self._config_told_to = now + _CONFIG_SECONDS, self._sender.connections
        except Exception as error:  # noqa: BLE001 - as above; steps are told all the same
            self._config = None
            _say("servescope-probe does not know this version's configuration: %s", error)

    def _disable(self, error: Exception) -> None:
        self._disabled = True
        _say("servescope-probe does not know this version's statistics and is off: %s", error)


# A method that a later version asks for must not keep the server from starting.
StepLogger.__abstractmethods__ = frozenset()


def _say(what: str, error: Exception) -> None:
    """Say something once."""
    if what not in _told:
        _told.add(what)
        log.warning(what, error)
