"""SQL in files of its own: statements by name, and the fragments by which their shape varies.

A ``.sql`` file holds blocks headed ``-- name: <name>``. Where a block says ``/*word*/`` one of the program's own
fragments is put; values never are: they reach the store as parameters (``{name:Type}``).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD: Final = re.compile(r"^-- name: ([^\n]*)\n", re.MULTILINE)
_NAME: Final = re.compile(r"\w+")
_FRAGMENT: Final = re.compile(r"/\*([a-z0-9_:]+)\*/")


@functools.cache
def statements(file: Path) -> Mapping[str, str]:
    """The statements of a ``.sql`` file by name, without the semicolon behind them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A name is no single word, or there twice; names the file.
    """
    parts = _HEAD.split(file.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for head, text in zip(parts[1::2], parts[2::2], strict=True):
        name = head.strip()
        if _NAME.fullmatch(name) is None or name in found:
            raise ValueError(f"{file}: the name {name!r} is {'there twice' if name in found else 'no single word'}")
        found[name] = text.strip().rstrip(";")
    return MappingProxyType(found)


def beside(module: str) -> Mapping[str, str]:
    """The statements of the ``.sql`` file beside a module, of the same name.

    Args:
        module: Its ``__file__``.
    """
    return statements(Path(module).with_suffix(".sql"))


def filled(sql: str, fragments: Mapping[str, str]) -> str:
    """A statement with its fragment for every ``/*word*/``, also for those inside of fragments.

    Raises:
        KeyError: There is none for a word.
    """
    return _FRAGMENT.sub(lambda match: filled(fragments[match[1]], fragments), sql)
