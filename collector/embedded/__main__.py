"""``python -m collector.embedded --data DIR --port N --owner-hash-file F``: the store as a process of its own."""

from __future__ import annotations

import base.quiet  # noqa: F401 - before all others

# isort: split
import os
import sys
from pathlib import Path

import click

from base.command import ending_in_words


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, file_okay=False), help="Data folder.")
@click.option("--port", required=True, type=click.IntRange(0, 65535), help="Port; 0 takes any free one.")
@click.option(
    "--owner-hash-file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the hex SHA-256 of the owner's password.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def main(data: Path, port: int, owner_hash_file: Path, host: str) -> None:
    """Run the embedded ClickHouse store until SIGTERM."""
    # The engine makes temporary folders where TMPDIR says, and outside the data folder it may not. It must find it in
    # the environment the process was born with: the library's start-up code reads what the kernel left behind the
    # environment, and a variable added later moves the environment away from there (a crash that comes and goes).
    temporary = str(data.absolute() / "spool")
    if os.environ.get("TMPDIR") != temporary:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "TMPDIR": temporary})  # noqa: S606
    from collector.embedded.serve import serve  # noqa: PLC0415 - the fence closes before the engine is imported

    with ending_in_words("store", f"Make {data} writable and leave it free space"):
        serve(data.absolute(), host, port, owner_hash_file)


if __name__ == "__main__":
    main()
