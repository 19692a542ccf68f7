"""The streaming reverse proxy in front of one model server."""

from __future__ import annotations

from servescope.part import part

tap = part("tap", "agent.tap", __doc__)
