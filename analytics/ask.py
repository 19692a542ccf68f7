"""Questions by name, for pages, the command line and machines."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from analytics import questions
from analytics.question import Command, QuestionError
from analytics.selection import Filter
from base import found

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.window import Window


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


def about_a_window() -> dict[str, Callable[..., Answer[Any]]]:
    """By name, all questions that are about a window; one request's story is asked by its key."""
    return {name: ask for name, ask in found.members(questions, "ask").items() if "window" in _parameters(ask)}


def ask(name: str, store: Reader, window: Window, filter: Filter = Filter(), **options: Any) -> dict[str, object]:  # noqa: A002, B008
    """The envelope (`Answer.envelope`) of one question about a window.

    Args:
        name: Of a file of `analytics.questions`.
        store: Where to ask.
        window: What time.
        filter: What of it.
        options: The question's own, such as ``signal`` and ``by`` of ``latency``; ``budget`` needs ``objectives``.

    Raises:
        QuestionError: There is no such question, it is about no window, or it takes no such option.
    """
    asked = question(name)
    known = _parameters(asked)
    if "window" not in known:
        raise QuestionError(f"{name} is about no window", f"Ask one of {', '.join(about_a_window())}")
    own = sorted(key for key, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY)
    if unknown := sorted(options.keys() - set(own)):
        raise QuestionError(f"{name} takes no {', '.join(unknown)}", f"It takes {', '.join(own) or 'no options'}")
    return asked(store, window, filter, **options).envelope(window, filter)


def _parameters(asked: Callable[..., Answer[Any]]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(asked).parameters)
