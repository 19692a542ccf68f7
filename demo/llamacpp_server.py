"""A real llama.cpp HTTP server (through ``xllamacpp``) over a tiny model made on the spot.

Run as ``python -m demo.llamacpp_server --port 18080 --folder DIR``.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from demo.llamacpp_model import write_tiny_llama

SLOTS = 4
CONTEXT_PER_SLOT = 1024


@click.command()
@click.option("--port", type=int, required=True, help="Port on 127.0.0.1.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the model file is kept.")
@click.option("--name", default="tiny-llama", show_default=True, help="Model name that clients use.")
def main(port: int, folder: Path, name: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import xllamacpp  # noqa: PLC0415 - a library of the system's that it needs may be missing
    except ImportError as error:
        raise click.ClickException(f"llama.cpp can't be loaded: {error} (Debian: apt-get install libgomp1)") from None

    model = folder / f"{name}.gguf"
    if not model.exists():
        temporary = model.with_suffix(f".{os.getpid()}")
        write_tiny_llama(temporary, name=name).replace(model)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT_PER_SLOT
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(parameters)
    stop.wait()
    del server
    os._exit(0)  # the server's own threads have no other way to end


if __name__ == "__main__":
    main()
