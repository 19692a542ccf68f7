"""Pages of model servers that somebody else scraped: put together again, they become samples as an agent's do."""
