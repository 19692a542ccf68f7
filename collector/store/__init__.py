"""The way to ClickHouse: where it is, the one client, the schema's migrations."""
