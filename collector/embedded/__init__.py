"""A ClickHouse server of our own: the chDB engine behind the ClickHouse HTTP interface, in its own process."""
