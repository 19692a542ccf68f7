"""What a question tells of itself besides its answer: its command and that command's own options."""

from __future__ import annotations

from dataclasses import dataclass

from base.errors import ServescopeError


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
