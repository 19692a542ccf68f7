"""Receives OpenTelemetry, makes it durable and writes it into ClickHouse."""
