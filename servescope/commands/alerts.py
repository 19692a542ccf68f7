"""Evaluates SLOs and rules, keeps incidents, notifies."""

from __future__ import annotations

from servescope.part import part

alerts = part("alerts", "alerts", __doc__)
