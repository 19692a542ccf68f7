"""The sidecar beside a model server: sources in, canonical samples, spans and events out, spooled and signed."""
