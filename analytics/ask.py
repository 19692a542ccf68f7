"""Questions by name, for pages, the command line and machines."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from analytics import questions
from analytics.question import Command, QuestionError
from base import found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection


def question(name: str) -> Callable[..., Answer[Any]]:
    """The question of a name: the ``ask`` of its file.

    Raises:
        QuestionError: There is no such question.
    """
    if name not in (known := found.names(questions)):
        raise QuestionError(f"There is no question {name!r}", f"Ask one of {', '.join(known)}")
    asked: Callable[..., Answer[Any]] = found.module(questions, name).ask
    return asked


def command_of(name: str) -> Command:
    """What a question declares of its command; the plainest where it declares nothing.

    Raises:
        QuestionError: There is no such question.
    """
    question(name)
    declared: Command = getattr(found.module(questions, name), "COMMAND", Command())
    return declared


def sentence_of(name: str, envelope: Mapping[str, Any]) -> str:
    """What of an answer is to be read first, in a sentence; empty where its question has none (``sentence``).

    Args:
        name: The question's.
        envelope: As `ask` gives it.

    Raises:
        QuestionError: There is no such question.
    """
    question(name)
    told: Callable[[Any], str] | None = getattr(found.module(questions, name), "sentence", None)
    return told(envelope["result"]) if told is not None else ""


def all_questions() -> dict[str, Callable[..., Answer[Any]]]:
    """The ``ask`` of every question, by name."""
    return dict(found.members(questions, "ask"))


def ask(name: str, store: Reader, selection: Selection, **options: Any) -> dict[str, object]:
    """The envelope (`Answer.envelope`) of one question.

    Args:
        name: Of a file of `analytics.questions`.
        store: Where to ask, and who asks.
        selection: What is looked at.
        options: The question's own, such as ``signal`` and ``by`` of ``latency``; ``budget`` needs ``objectives``.

    Raises:
        QuestionError: There is no such question, it makes no sense of the selection, or it takes no such option.
    """
    asked = question(name)
    known = inspect.signature(asked).parameters.items()
    own = sorted(key for key, parameter in known if parameter.kind is parameter.KEYWORD_ONLY)
    if unknown := sorted(options.keys() - set(own)):
        raise QuestionError(f"{name} takes no {', '.join(unknown)}", f"It takes {', '.join(own) or 'no options'}")
    return asked(store, selection, **options).envelope(selection)
