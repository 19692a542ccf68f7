"""Alerts that belong together, what is known about them, and how people read it."""
