"""Why requests took longer than they should: seconds of requests charged to causes, signed and conserved."""
