"""One table per engine: its metrics mapped to our signals, and the ones left out by name."""
