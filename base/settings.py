"""What a setting is beside its type: that it names a port or a file is said where it is declared.

A field carries it in its ``Annotated`` type; who checks a whole configuration finds it there, and knows no field by
name.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

EACH: Final = "[]"
"""In the place of a setting: each entry of a list."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port on which something listens; no two may be the same.

    Args:
        name: What it is called among the ports of a running Servescope; "" for one that has a name of its own only in
            its list.
    """

    name: str = ""


@dataclass(frozen=True, slots=True)
class MustExist:
    """A file that must be there and readable.

    Args:
        home: A path may begin with ``~``.
        shown: What was written may be said again; not where people write the secret itself instead of its file.
    """

    home: bool = False
    shown: bool = True


_Mark = TypeVar("_Mark", bound=Port | MustExist)


def marked(model: type[BaseModel], kind: type[_Mark]) -> Iterator[tuple[tuple[str, ...], _Mark]]:
    """Places of all settings that carry such a mark, and the mark; settings inside settings too.

    Args:
        model: A section's settings.
        kind: The mark's class.
    """
    for name, field in model.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, kind):
                yield (name,), mark
        for inner, way in _models(field.annotation):
            for place, one in marked(inner, kind):
                yield (name, *way, *place), one
    # Sections that are found and not listed: what such a model would have as fields.
    sections: dict[str, type[BaseModel]] = getattr(model, "sections", dict)()
    for name, inner in sections.items():
        yield from (((name, *place), one) for place, one in marked(inner, kind))


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    """Settings that a type holds, and the way to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ()
        return
    origin, parts = get_origin(annotation), get_args(annotation)
    way = (EACH,) if origin in {list, tuple} else ()
    for part in dict.fromkeys(parts) if origin in {list, tuple, Union, UnionType, Annotated} else ():
        for model, rest in _models(part):
            yield model, (*way, *rest)
