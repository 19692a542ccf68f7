"""The streaming reverse proxy that records every request and never holds one up."""
