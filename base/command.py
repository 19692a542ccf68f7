"""What the command line of every part shares: how it ends when it can't start."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from base.errors import ServescopeError
from base.redact import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ending_in_words(part: str, fix: str = "") -> Iterator[None]:
    """Turn an error that is meant for people into one line on stderr and exit code 1.

    Args:
        part: Short name of the part, as in ``servescope PART``.
        fix: What mends an error of the operating system, whose text names the file or port but no way out.
    """
    try:
        yield
    except ServescopeError as error:
        told = str(error)
    except OSError as error:
        told = redacted(f"{error}. {fix}" if fix else str(error))
    else:
        return
    click.echo(f"servescope {part}: {told}", err=True)
    sys.exit(1)
