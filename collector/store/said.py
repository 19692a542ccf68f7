"""What went wrong, as ClickHouse and its driver say it."""

from __future__ import annotations

import re
from typing import Final

NO_SCHEMA: Final = frozenset({60, 81})
"""No such table or database: the store is new, was emptied or replaced, and wants its migrations."""


def plain(text: str) -> str:
    """The same without the driver's and the server's wrapping."""
    text = re.sub(r"^.*?Code: \d+\. (?:DB::Exception: )?", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"\s*\(version [^()]*(?:\([^()]*\))?[^()]*\).*$", "", text, flags=re.DOTALL)
    return re.sub(r"\s*\([A-Z][A-Z0-9_]+\)\s*$", "", text).strip()
