"""Metrics pages: found, fetched, parsed, and made into canonical samples."""
