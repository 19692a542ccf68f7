"""What the tests of the documents share: the files of the project, their links, and tables in Markdown."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")


@cache
def tracked() -> tuple[Path, ...]:
    """Files that git knows or would take; without git, all but hidden folders and caches."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        hidden = re.compile(r"(?:^|/)(?:\.(?!ci/)|__pycache__|build/|dist/)")
        paths = [path for path in ROOT.rglob("*") if not hidden.search(str(path.relative_to(ROOT)))]
    return tuple(sorted(path for path in paths if path.is_file()))


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def blocks(text: str, language: str) -> list[str]:
    """Bodies of the fenced blocks of one language."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """Without fenced blocks and code in lines."""
    return _CODE.sub("", _FENCE.sub("", text))


def sections(path: Path) -> dict[str, str]:
    """Heading → text up to the next heading of any level."""
    found: dict[str, str] = {}
    name = ""
    for line in _FENCE.sub("", path.read_text()).splitlines():
        if line.startswith("#"):
            name = line.lstrip("#").strip()
            found[name] = ""
        elif name:
            found[name] += line + "\n"
    return found


def first_cells(text: str) -> dict[str, str]:
    """Word in backticks at the start of a table's row → the row's second cell."""
    return {m[1]: m[2].strip() for m in re.finditer(r"^\| `([^`]+)` \|([^|]*)\|", text, re.MULTILINE)}


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
