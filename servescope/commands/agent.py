"""The sidecar: scrapes, takes spans, spools and ships."""

from __future__ import annotations

from servescope.part import part

agent = part("agent", "agent", __doc__)
