"""Reads a rules file; every error names the file, the line and the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from agent.errors import ConfigError
from alerts.durations import spell
from alerts.rules import STORE_RULE, BurnRule, RulesFile, all_rules, burn_rules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_BYTES: Final = 4 << 20
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: ten times faster, the same nodes and lines."""


class RulesError(ConfigError):
    """A rules file is wrong.

    Args:
        faults: One ``file:line: field: what`` per fault.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults), "Mend the lines named above, then run: servescope rules check FILE")

    def __str__(self) -> str:
        return f"{self.what}\n{self.fix}"


def load(path: Path) -> RulesFile:
    """Read and check a rules file.

    Raises:
        RulesError: It can't be read, is no YAML, or a field is wrong; all faults at once.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RulesError([f"{path}: larger than {MAX_BYTES >> 20} MiB"])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError([f"{path}: can't be read: {error}"]) from error
    return parse(text, str(path))


def parse(text: str, origin: str = "rules") -> RulesFile:
    """Check the text of a rules file.

    Args:
        text: YAML.
        origin: File name for the messages.

    Raises:
        RulesError: As for :func:`load`.
    """
    node, data = _read(text, origin)
    faults = [] if node is None else [f"{origin}:{line}: {path}: given twice" for line, path in _repeated(node, "")]
    if not isinstance(data, dict):
        raise RulesError([f"{origin}:1: the file must be a mapping with slos: and rules:"])
    try:
        file = RulesFile.model_validate(data)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            path, line = _place(node, fault["loc"])
            faults.append(f"{origin}:{line}: {path}: {_say(fault)}")
        raise RulesError(faults) from error
    faults += _clashes(file, node, origin)
    if faults:
        raise RulesError(faults)
    return file


def _read(text: str, origin: str) -> tuple[yaml.Node | None, Any]:
    loader: Any = None
    try:
        loader = _LOADER(text)
        node = loader.get_single_node()
        data: Any = {} if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise RulesError([f"{origin}:{line}: not YAML: {error.problem or error}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RulesError([f"{origin}:1: not YAML: {error}"]) from error
    finally:
        if loader is not None:
            loader.dispose()
    return node, data


def _clashes(file: RulesFile, node: yaml.Node | None, origin: str) -> list[str]:
    """Names that two rules bear."""
    faults = []
    names: dict[str, str] = {STORE_RULE: "the pager's own rule"}
    for kind, entries in (("slos", file.slos), ("rules", file.rules)):
        for index, entry in enumerate(entries):
            path, line = _place(node, (kind, index, "name"))
            if entry.name in names:
                faults.append(f"{origin}:{line}: {path}: {entry.name} is the name of {names[entry.name]} too")
            names.setdefault(entry.name, path)
    for index, slo in enumerate(file.slos):
        path, line = _place(node, ("slos", index, "name"))
        faults += [
            f"{origin}:{line}: {path}: it generates {rule.name}, the name of {names[rule.name]} too"
            for rule in burn_rules(slo)
            if rule.name in names
        ]
    return faults


def summary(file: RulesFile) -> dict[str, object]:
    """What a file means, for ``servescope rules check --json``.

    Returns:
        ``{"slos": [{"name", "target", "period_seconds", "windows": [{"long_seconds", "short_seconds", "factor",
        "severity"}]}], "rules": [{"name", "kind", "severity", "for_seconds", "runbook"}], "warnings": [text]}``;
        generated burn-rate rules are among ``rules`` with the kind ``burn``.
    """
    rules: list[dict[str, object]] = []
    for rule in all_rules(file):
        if isinstance(rule, BurnRule):
            entry = {"name": rule.name, "kind": "burn", "severity": rule.severity, "for_seconds": 0.0}
            rules.append({**entry, "runbook": rule.slo.runbook})
        else:
            entry = {"name": rule.name, "kind": rule.when.kind, "severity": rule.severity, "for_seconds": rule.for_}
            rules.append({**entry, "runbook": rule.runbook})
    return {
        "slos": [
            {
                "name": slo.name,
                "target": slo.target,
                "period_seconds": slo.period,
                "windows": [
                    {
                        "long_seconds": w.long_seconds,
                        "short_seconds": w.short_seconds,
                        "factor": w.factor,
                        "severity": w.severity,
                    }
                    for w in slo.burn_windows()
                ],
            }
            for slo in file.slos
        ],
        "rules": rules,
        "warnings": list(file.warnings()),
    }


def check(path: Path) -> str:
    """Plain text of ``servescope rules check FILE``.

    Raises:
        RulesError: The file is wrong.
    """
    file = load(path)
    rules = all_rules(file)
    lines = [f"{path}: {len(file.slos)} SLOs, {len(rules)} rules ({len(rules) - len(file.rules)} generated)"]
    for rule in rules:
        if isinstance(rule, BurnRule):
            pairs = ", ".join(
                f"{spell(w.long_seconds)}/{spell(w.short_seconds)} above {w.factor:g}x" for w in rule.windows
            )
            lines.append(f"  {rule.name}  {rule.severity}  burn rate {pairs}")
        else:
            lines.append(f"  {rule.name}  {rule.severity}  {rule.when.kind}, for {spell(rule.for_)}")
    lines += [f"  warning: {text}" for text in file.warnings()]
    return "\n".join(lines)


def _say(fault: Any) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            return "no such field"
        case "missing":
            return "is missing"
        case "union_tag_invalid":
            return f"kind {context.get('tag')!r} is none of {context.get('expected_tags')}"
        case "union_tag_not_found":
            return "needs a kind"
    text = str(fault["msg"]).removeprefix("Value error, ")
    shown = repr(fault.get("input"))
    return text if len(shown) > 60 or shown in text else f"{text} (got {shown})"  # noqa: PLR2004 a line stays readable


def _place(root: yaml.Node | None, location: tuple[int | str, ...]) -> tuple[str, int]:
    """The dotted path and line of a pydantic location; tags of unions, which no key answers to, are passed over."""
    node, line, path, entered = root, 1, "", True
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


def _kind(node: yaml.Node | None) -> object:
    """The value of ``kind`` of a mapping, which pydantic puts into its locations."""
    kind, _ = _child(node, "kind")
    return kind.value if isinstance(kind, yaml.ScalarNode) else None


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None, 0


def _repeated(node: yaml.Node, path: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            if key.value in seen:
                found.append((key.start_mark.line + 1, here))
            seen.add(key.value)
            found += _repeated(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found += _repeated(item, f"{path}[{index}]")
    return found
