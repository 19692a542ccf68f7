"""Reads a rules file; every error names the file, the line and the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from alerts.rules import own
from alerts.rules.model import RulesFile
from base import yamlfile
from base.formats import spell
from base.yamlfile import FileError, YamlFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class RulesError(FileError):
    """A rules file is wrong.

    Args:
        faults: One ``file:line: field: what`` per fault.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(faults, "Mend the lines named above, then run: servescope rules check FILE")


def load(path: Path) -> RulesFile:
    """Read and check a rules file.

    Raises:
        RulesError: It can't be read, is no YAML, or a field is wrong; all faults at once.
    """
    try:
        return _checked(yamlfile.read(path))
    except FileError as error:
        raise RulesError(error.faults) from error


def parse(text: str, origin: str = "rules") -> RulesFile:
    """Check the text of a rules file.

    Args:
        text: YAML.
        origin: File name for the messages.

    Raises:
        RulesError: As for :func:`load`.
    """
    try:
        return _checked(yamlfile.parse(text, origin))
    except FileError as error:
        raise RulesError(error.faults) from error


def _checked(file: YamlFile) -> RulesFile:
    if not isinstance(file.data, dict):
        raise FileError([f"{file.origin}:1: the file must be a mapping with slos: and rules:"])
    faults = list(file.repeated)
    try:
        rules = RulesFile.model_validate(file.data)
    except ValidationError as error:
        raise FileError(faults + file.faults(error)) from error
    faults += _clashes(rules, file)
    faults += [f"{file.fault(location)}: {text}" for location, text in rules.blind()]
    if faults:
        raise FileError(faults)
    return rules


def _clashes(rules: RulesFile, file: YamlFile) -> list[str]:
    """Names that two rules bear."""
    faults = []
    names: dict[str, str] = dict.fromkeys(own.NAMES, "the pager's own rule")
    for kind, entries in (("slos", rules.slos), ("rules", rules.rules)):
        for index, entry in enumerate(entries):
            location = (kind, index, "name")
            if entry.name in names:
                faults.append(f"{file.fault(location)}: {entry.name} is the name of {names[entry.name]} too")
            names.setdefault(entry.name, file.place(location)[0])
    for index, slo in enumerate(rules.slos):
        faults += [
            f"{file.fault(('slos', index, 'name'))}: it generates {rule.name}, the name of {names[rule.name]} too"
            for rule in slo.rules()
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
    for entry in file.rules:
        known = {"name": entry.name, "kind": entry.when.kind, "severity": entry.severity, "for_seconds": entry.for_}
        rules.append({**known, "runbook": entry.runbook})
    for rule in [rule for slo in file.slos for rule in slo.rules()]:
        known = {"name": rule.name, "kind": "burn", "severity": rule.severity, "for_seconds": 0.0}
        rules.append({**known, "runbook": rule.runbook})
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
    generated = [(slo, rule) for slo in file.slos for rule in slo.rules()]
    count = len(file.rules) + len(generated)
    lines = [f"{path}: {len(file.slos)} SLOs, {count} rules ({len(generated)} generated)"]
    lines += [f"  {one.name}  {one.severity}  {one.when.kind}, for {spell(one.for_)}" for one in file.rules]
    for slo, rule in generated:
        windows = [window for window in slo.burn_windows() if window.severity == rule.severity]
        pairs = ", ".join(f"{spell(w.long_seconds)}/{spell(w.short_seconds)} above {w.factor:g}x" for w in windows)
        lines.append(f"  {rule.name}  {rule.severity}  burn rate {pairs}")
    lines += [f"  warning: {text}" for text in file.warnings()]
    return "\n".join(lines)
