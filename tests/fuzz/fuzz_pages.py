"""Coverage-guided fuzzing of the page parser: ``make fuzz``, or ``python -m tests.fuzz.fuzz_pages [seconds]``.

What it finds is written as ``crash-…`` into the folder where it runs, and stops it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agent.pages"]):
    from agent.pages import page as _page  # noqa: F401 - so that its branches are counted

from tests.kits.page_judge import RECORDED, judge, text_of

_LONGEST = 8_192
_MEMORY_MIB = 1_024
_COUNTS = {"read": 0, "refused": 0}


def one(data: bytes) -> None:
    """what stands before two NUL bytes is the page before it."""
    before, found, body = data.partition(b"\0\0")
    refused = judge(body, before) if found else judge(data)
    _COUNTS["refused" if refused else "read"] += 1
    if sum(_COUNTS.values()) % 10_000 == 0:
        sys.stderr.write(f"{_COUNTS}\n")


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory(prefix="servescope-fuzz-") as folder:
        for path in RECORDED:
            text = text_of(path).encode()
            seed = Path(folder) / f"{path.parent.name}-{path.name}"
            seed.write_bytes(text[:_LONGEST])
            Path(f"{seed}-slice").write_bytes(text[: _LONGEST // 4])
            Path(f"{seed}-twice").write_bytes(text[: _LONGEST // 4] + b"\0\0" + text[: _LONGEST // 4])
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={seconds}",
                f"-max_len={_LONGEST}",
                f"-rss_limit_mb={_MEMORY_MIB}",
                "-timeout=60",
                "-print_final_stats=1",
                folder,
            ],
            one,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
