"""What a question tells of itself besides its answer: its command and that command's own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Collection

    from analytics.selection import Selection


class QuestionError(ServescopeError):
    """A question was asked wrongly; names what and how to ask it."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a question that its command takes too.

    Attributes:
        name: As the question's `ask` calls it; ``--name`` of the command.
        help: One sentence.
        type: What its text is read as.
    """

    name: str
    help: str
    type: type = str


@dataclass(frozen=True, slots=True)
class Command:
    """Says that a question has a command of its name; selection and store are every such command's.

    Attributes:
        options: The question's own.
        of_slos: Whether it is asked of the objectives of a file of SLOs, which are its option ``objectives``, and over
            their own period.
    """

    options: tuple[Option, ...] = ()
    of_slos: bool = False


def refuse(question: str, selection: Selection, fields: Collection[str]) -> None:
    """Refuse a selection that narrows by other fields than a question can make sense of.

    Raises:
        QuestionError: Names the others, and those that it goes by.
    """
    if others := [name for name in selection.chosen() if name not in fields]:
        raise QuestionError(
            f"{question} can't be narrowed by {', '.join(others)}",
            f"It goes by {', '.join(fields)}: leave the rest out",
        )
