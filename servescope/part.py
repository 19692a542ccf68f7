"""Commands that are one part of Servescope, alone: the part's own module with its own options."""

from __future__ import annotations

import os
import sys

import click


def part(name: str, module: str, text: str | None) -> click.Command:
    """A command that becomes ``python -m module`` with all that was typed behind it."""

    @click.command(
        name,
        help=text,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "auto_envvar_prefix": None},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the part itself, no shell

    return command
