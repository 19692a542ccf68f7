"""The dashboard."""

from __future__ import annotations

from servescope.part import part

dashboard = part("dashboard", "dashboard", __doc__)
