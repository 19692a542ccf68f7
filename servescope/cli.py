"""The command line of Servescope: the group that finds its commands, and how errors end it."""

from __future__ import annotations

from base import quiet

# isort: split
import sys
from importlib.metadata import entry_points
from typing import Any, NoReturn

import click

from analytics import questions
from base import found
from base.errors import ServescopeError
from base.logs import log_to_stderr
from base.redact import redacted
from servescope import commands
from servescope.question import question

quiet.over()

_ELSEWHERE = "servescope.commands"
"""Entry points under which other packages bring a command."""


class Program(click.Group):
    """Finds its commands: a file in ``servescope/commands`` each, a question each, an entry point each.

    Every error meant for people becomes one line and exit code 1.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, sorted."""
        elsewhere = {entry.name for entry in entry_points(group=_ELSEWHERE)}
        return sorted({*found.names(commands), *_asking(), *elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of a name; its file is imported only now."""
        name = cmd_name.replace("-", "_")
        if name in found.names(commands):
            command: click.Command = getattr(found.module(commands, name), name)
            return command
        if name in _asking():
            return question(name)
        for entry in entry_points(group=_ELSEWHERE, name=cmd_name):
            loaded: click.Command = entry.load()
            return loaded
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what their files say first."""
        files = dict.fromkeys(found.names(commands), commands) | dict.fromkeys(_asking(), questions)
        texts = {name: found.summary(f"{package.__name__}.{name}") for name, package in files.items()}
        texts |= {entry.name: found.summary(entry.module) for entry in entry_points(group=_ELSEWHERE)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, texts[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn an error into a line."""
        try:
            return super().invoke(ctx)
        except ServescopeError as error:
            _fail(str(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click ends quietly: the reader has seen enough
            _fail(redacted(f"{error.filename or 'the output'}: {error.strerror or error}"))


def _asking() -> tuple[str, ...]:
    """Names of the questions that have a command."""
    return found.declaring(questions, "COMMAND")


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "SERVESCOPE"})
@click.version_option(package_name="servescope")
def main() -> None:
    """Observability and incident response for model serving."""
    # What a command prints is its answer, for people and pipes; what it logs goes beside that.
    log_to_stderr("warning")
