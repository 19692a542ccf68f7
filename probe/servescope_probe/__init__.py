"""Every step of an inference engine, its limits and every request at its door, told to a Servescope agent beside it.

It is installed into the model server's environment, so it depends on nothing, and nothing that goes wrong in it may be
felt by the server: no exception leaves it, it never waits, what nobody takes is dropped and counted.

``servescope_probe.plugin:StepLogger`` is vLLM's stat logger (found by its entry point); ``servescope_probe.Edge`` is
ASGI middleware (``vllm serve --middleware servescope_probe.Edge``).
"""

from servescope_probe.edge import Edge

__all__ = ["Edge"]
__version__ = "0.1.0"
