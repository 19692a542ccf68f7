"""``python -m servescope``: the program."""

from __future__ import annotations

from base import quiet

# isort: split
from servescope.cli import main

quiet.over()

if __name__ == "__main__":
    main()
