"""Extension points: what a package's folder holds is what there is.

An engine, a source, a question, a command, … is a file of its folder. Nothing lists them: a file that is put there is
found, one that is taken out is gone. A file whose name begins with an underscore is its neighbours' own.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.errors import ServescopeError

if TYPE_CHECKING:
    from types import ModuleType


class NotFoundError(ServescopeError):
    """A file of an extension point lacks what makes it one; names both."""


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of the modules in a package's folder, sorted; none is imported."""
    return tuple(sorted(one.name for one in pkgutil.iter_modules(package.__path__) if not one.name.startswith("_")))


def module(package: ModuleType, name: str) -> ModuleType:
    """The module of that name in the package's folder.

    Raises:
        ModuleNotFoundError: There is none.
    """
    return importlib.import_module(f"{package.__name__}.{name}")


def members(package: ModuleType, attribute: str) -> dict[str, Any]:
    """What each module of the folder calls ``attribute``, by the module's name.

    Raises:
        NotFoundError: A module has no such attribute.
    """
    found: dict[str, Any] = {}
    for name in names(package):
        one = module(package, name)
        if not hasattr(one, attribute):
            raise NotFoundError(
                f"{one.__file__} has no {attribute}", f"Every file of {package.__name__} has one; the names of others "
                "begin with an underscore",
            )  # fmt: skip
        found[name] = getattr(one, attribute)
    return found


def declaring(package: ModuleType, attribute: str) -> tuple[str, ...]:
    """Names of the modules in a package's folder that set ``attribute`` at their top; none is imported."""
    found = []
    for name in names(package):
        text = _text(f"{package.__name__}.{name}")
        if attribute in text and any(attribute in _set_by(node) for node in ast.parse(text).body):
            found.append(name)
    return tuple(found)


def summary(name: str) -> str:
    """First line of a module's docstring; the module itself is not imported, for a list must not cost what it lists.

    Args:
        name: Its full name.
    """
    text = ast.get_docstring(ast.parse(_text(name))) or ""
    return text.partition("\n")[0]


def _text(name: str) -> str:
    spec = find_spec(name)
    return Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin is not None else ""


def _set_by(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
