"""Prometheus remote write: its messages, and what they become in OTLP."""
