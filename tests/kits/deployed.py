"""What the tests of ``deploy/`` share: tools, the chart as helm renders it, and commands as our own CLI reads them."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from servescope.cli import main
from tests.kits.needs import lack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "servescope"
OLDEST = "1.30.0"
"""``kubeVersion`` of the chart."""


def tool(name: str) -> str:
    path = ROOT / ".venv-deploy" / "bin" / name
    return str(path) if path.exists() else lack(f"needs {name} (make .venv-deploy/.installed)")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False, env=environment)


@cache
def rendered(values: str = "", chart: Path = CHART) -> str:
    """The manifests of a release ``obs`` in the namespace ``watch``; ``values`` is YAML."""
    given = json.dumps(yaml.safe_load(values) or {})
    told = subprocess.run(
        [tool("helm"), "template", "obs", str(chart), "-n", "watch", "--kube-version", OLDEST, "-f", "-"],
        input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return told.stdout


def manifests(values: str = "", chart: Path = CHART) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(rendered(values, chart), yaml.CSafeLoader) if each]


def pods(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod template of every workload."""
    for each in found:
        if "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def is_ours(image: str) -> bool:
    return image.partition(":")[0] in {"servescope", "servescope-agent"}


def parse(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> dict[str, Any]:
    """Options of a command line as the command itself reads them; nothing is started.

    Raises:
        click.UsageError: It has no such command or option.
    """
    name, *rest = arguments
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"there is no servescope {name}"
    ran: list[list[str]] = []
    with monkeypatch.context() as patched:
        patched.setattr("servescope.part.os.execv", lambda _, words: ran.append(words))
        if command.params and command.params[0].name == "arguments":  # a part, which becomes its module
            command.main([*rest], standalone_mode=False)
            _, flag, module, *rest = ran[0]
            assert flag == "-m"
            command = importlib.import_module(f"{module}.__main__").main
    return command.make_context(name, list(rest)).params


def expanded(text: str, **variables: str) -> str:
    """``$(NAME)`` as the kubelet replaces it."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)
