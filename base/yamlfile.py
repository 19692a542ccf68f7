"""YAML files that people write: each fault is told with its file, its line and its field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

from base.errors import ConfigError
from base.redact import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

MAX_BYTES: Final = 4 << 20
MAX_VALUES: Final = MAX_BYTES
"""No file has more values without aliases; some lines of these may stand for more than any memory holds."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: ten times faster, the same nodes and lines."""
_SHOWN: Final = 60
"""Letters of a wrong value that a fault still shows: its line stays readable."""
_TYPES: Final = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type"), "a mapping, its entries indented below it"),
    "string_type": "text",
    "string_pattern_mismatch": "a name: letters, digits and ._:-, the first a letter or digit",
    "recursion_loop": "something else than a part of itself",
    "path_type": "a path",
}
"""pydantic's names of faults → what the field wants."""
_NEVER_SHOWN: Final = frozenset({"key_env", "key_file", "key_header", "routing_key_env"})
"""Fields into which people put a secret itself by mistake."""

Model = TypeVar("Model", bound="BaseModel")


class FieldError(ValueError):
    """A validator's word about a field below the one that it validates.

    Args:
        location: Keys and indices that lead to the field.
        what: What is wrong with it.
    """

    def __init__(self, location: tuple[int | str, ...], what: str) -> None:
        self.location = location
        super().__init__(what)


class FileError(ConfigError):
    """A file that people write is wrong.

    Args:
        faults: One ``file:line: field: what`` per fault.
        fix: What mends it.
    """

    def __init__(self, faults: Sequence[str], fix: str = "Mend what is named above") -> None:
        self.faults = tuple(map(redacted, faults))
        super().__init__("\n".join(faults), fix)

    def __str__(self) -> str:
        return f"{self.what}\n{self.fix}"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A file as it was read.

    Attributes:
        origin: Its name, for messages.
        node: Its nodes with their lines; None when it is empty.
        data: The same as plain values; ``{}`` when it is empty.
        repeated: One fault for each key that a mapping has twice: YAML's loaders keep the last and say nothing.
    """

    origin: str
    node: yaml.Node | None
    data: Any
    repeated: tuple[str, ...] = ()

    def section(self, name: str) -> dict[str, Any]:
        """The settings below a key of the top level; ``{}`` when there are none.

        Raises:
            FileError: The key holds something else, or so does the file.
        """
        if not isinstance(self.data, dict):
            raise FileError([f"{self.origin}:1: the file is no mapping of sections"])
        found = self.data.get(name)
        if found is not None and not isinstance(found, dict):
            raise FileError([f"{self.fault((name,))}: is not a mapping: write its settings below it, indented"])
        return dict(found or {})

    def fault(self, location: tuple[int | str, ...]) -> str:
        """``file:line: field`` of a location, to which the fault is added."""
        path, line = self.place(location)
        return f"{self.origin}:{line}: {path}"

    def place(self, location: tuple[int | str, ...]) -> tuple[str, int]:
        """The dotted path and line of a pydantic location; tags of unions, which no key answers to, are passed over."""
        node, line, path, entered = self.node, 1, "", True
        for position, part in enumerate(location):
            if entered and part == _kind(node):
                entered = False
                continue
            found, at = _child(node, part)
            last = position == len(location) - 1
            if found is not None or (last and isinstance(node, yaml.MappingNode)):
                path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
            if found is not None:
                node, line, entered = found, at, True
        return path or "file", line

    def faults(self, error: ValidationError, *within: str) -> list[str]:
        """What pydantic found, in words.

        Args:
            error: Of validating ``data`` or a part of it.
            within: The keys that lead to that part.
        """
        return [
            f"{self.fault((*within, *location_of(fault)))}: {say(fault)}" for fault in error.errors(include_url=False)
        ]


def read(path: Path) -> YamlFile:
    """Read a file.

    Raises:
        FileError: It can't be read, is too large, or is no YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError([f"{path}: larger than {MAX_BYTES >> 20} MiB"])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(
            [f"{path}: can't be read: {error.strerror or error}"], "Name a file that can be read"
        ) from error
    except UnicodeDecodeError as error:
        raise FileError([f"{path}: can't be read: it is not UTF-8 text"]) from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> YamlFile:
    """Read the text of a file.

    Raises:
        FileError: It is no YAML.
    """
    loader: Any = None
    try:
        loader = _LOADER(text)
        node = loader.get_single_node()
        # Before the values are made, for that puts what is merged (<<) among a mapping's own keys.
        repeated = [] if node is None else _repeated(node, "", set())
        if node is not None:
            _bound(node, {}, origin)
        data: Any = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise FileError([f"{origin}:{line}: not YAML: {error.problem or error}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileError([f"{origin}:1: not YAML: {error}"]) from error
    finally:
        if loader is not None:
            loader.dispose()
    told = tuple(f"{origin}:{line}: {path}: given twice" for line, path in repeated)
    return YamlFile(origin, node, {} if data is None else data, told)


def settings(
    path: Path | None, name: str, model: type[Model], over: Mapping[str, tuple[str, Any]] | None = None
) -> Model:
    """One section of a configuration file as its package's settings.

    Args:
        path: The file; None takes the defaults.
        name: The section.
        model: What its fields may be.
        over: Field → where it was said and its value; goes before the file.

    Raises:
        FileError: The file can't be read or a field is wrong; all faults at once.
    """
    file = read(path) if path is not None else YamlFile("the configuration", None, {})
    return checked(file, name, model, over)


def checked(file: YamlFile, name: str, model: type[Model], over: Mapping[str, tuple[str, Any]] | None = None) -> Model:
    """As `settings`, of a file that has been read."""
    from pydantic import ValidationError  # noqa: PLC0415 - commands that only read a file need not wait for it

    over = over or {}
    if file.repeated:
        raise FileError(file.repeated)
    try:
        return model.model_validate(file.section(name) | {field: value for field, (_, value) in over.items()})
    except ValidationError as error:
        raise FileError([
            f"{': '.join((over[field][0], *map(str, place[1:])))}: {say(fault)}"
            if (field := str(place[0]) if place else "") in over
            else f"{file.fault((name, *place))}: {say(fault)}"
            for fault in error.errors(include_url=False)
            for place in (location_of(fault),)
        ]) from error  # fmt: skip


def say(fault: ErrorDetails) -> str:
    """A fault of pydantic's, for people who write YAML and not Python."""
    context = fault.get("ctx", {})
    kind = fault["type"]
    match kind:
        case "extra_forbidden":
            return "no such field"
        case "missing":
            return "is missing"
        case "union_tag_invalid":
            return f"kind {context.get('tag')!r} is none of {context.get('expected_tags')}"
        case "union_tag_not_found":
            return "needs a kind"
    text = f"must be {_TYPES[kind]}" if kind in _TYPES else fault["msg"].removeprefix("Value error, ")
    text = re.sub(r"^Input should be ", "must be ", text)
    given = fault.get("input")
    if given is None:
        return f"{text} (got nothing)"
    shown = str(given).lower() if isinstance(given, bool) else repr(given)
    # Before an @ there may be a password, after a ? a token.
    named = bool(fault["loc"]) and fault["loc"][-1] in _NEVER_SHOWN
    plain = (
        not named
        and isinstance(given, str | int | float)
        and len(shown) <= _SHOWN
        and shown not in text
        and not {"@", "?"} & set(shown)
    )
    return f"{text} (got {shown})" if plain else text


def location_of(fault: ErrorDetails) -> tuple[int | str, ...]:
    """Where a fault is; a validator may have said it of a field further down."""
    inner = fault.get("ctx", {}).get("error")
    return (*fault["loc"], *inner.location) if isinstance(inner, FieldError) else fault["loc"]


def _kind(node: yaml.Node | None) -> object:
    """The value of ``kind`` of a mapping, which pydantic puts into its locations."""
    kind, _ = _child(node, "kind")
    return kind.value if isinstance(kind, yaml.ScalarNode) else None


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # what is merged (<<) stands before what overrides it
            if key.value == str(part):
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None, 0


def _bound(node: yaml.Node, sizes: dict[int, int], origin: str) -> int:
    """How many values a node stands for, what its aliases stand for included.

    Raises:
        FileError: More than a file may have.
    """
    if (known := sizes.get(id(node))) is not None:
        return known
    sizes[id(node)] = 1  # a part of itself, which is told when the values are checked
    size = 1
    if isinstance(node, yaml.MappingNode):
        size += sum(_bound(key, sizes, origin) + _bound(value, sizes, origin) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_bound(item, sizes, origin) for item in node.value)
    if size > MAX_VALUES:
        line = node.start_mark.line + 1
        raise FileError([f"{origin}:{line}: stands for more than {MAX_VALUES} values with its aliases"])
    sizes[id(node)] = size
    return size


def _repeated(node: yaml.Node, path: str, passed: set[int]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    if id(node) in passed:  # an alias, perhaps of what it stands in
        return found
    passed.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            if key.value in seen:
                found.append((key.start_mark.line + 1, here))
            seen.add(key.value)
            found += _repeated(value, here, passed)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found += _repeated(item, f"{path}[{index}]", passed)
    return found
