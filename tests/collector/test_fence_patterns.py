"""Patterns of the fence mean the same to every Python that we run on."""

from __future__ import annotations

import re
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

import pytest

from collector.embedded import canonical, pieces, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAVES_CHOICES = {kinds.BRANCH, kinds.MAX_REPEAT, kinds.MIN_REPEAT}


def loose(tree: Any, possessive: bool = False) -> Iterator[Any]:
    """What can be gone back into below a possessive repetition, atomic groups aside."""
    for kind, what in tree:
        if possessive and kind in _LEAVES_CHOICES:
            yield kind
        inside = kind is kinds.POSSESSIVE_REPEAT or (possessive and kind is not kinds.ATOMIC_GROUP)
        for part in what if isinstance(what, (tuple, list)) else [what]:
            for below in part if kind is kinds.BRANCH and isinstance(part, list) else [part]:
                if isinstance(below, parser.SubPattern):
                    yield from loose(below, inside)


def patterns(monkeypatch: pytest.MonkeyPatch) -> list[re.Pattern[str]]:
    made: list[re.Pattern[str]] = []
    compile_ = re.compile
    with monkeypatch.context() as patched:
        patched.setattr(re, "compile", lambda *given: made.append(compile_(*given)) or made[-1])
        canonical.replace_tables("FROM system.settings", {"settings": "1 AS x"})
    assert made
    return made + [one for module in (canonical, pieces, statement) for one in vars(module).values()
                   if isinstance(one, re.Pattern)]  # fmt: skip


def test_possessive_repetitions_leave_nothing_to_go_back_into(monkeypatch: pytest.MonkeyPatch):
    found = patterns(monkeypatch)
    assert sum("*+" in one.pattern or "++" in one.pattern for one in found) > 2
    for one in found:
        assert not list(loose(parser.parse(one.pattern, one.flags))), one.pattern


@pytest.mark.parametrize(("text", "is_loose"), [(r"(?:a|'')*+", True), (r"(?:(?>a|''))*+", False), (r"(?:a+b)++", True),
                                                (r"(?:a++b)*+", False), (r"(a|b)*", False)])  # fmt: skip
def test_what_is_loose_is_found(text: str, is_loose: bool):
    assert bool(list(loose(parser.parse(text)))) is is_loose
