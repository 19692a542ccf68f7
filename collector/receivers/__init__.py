"""One file per protocol that the collector takes."""
