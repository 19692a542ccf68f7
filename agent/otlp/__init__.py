"""OTLP as the agent writes and checks it."""
