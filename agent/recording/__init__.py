"""Recordings: made, read, and played into a collector."""
