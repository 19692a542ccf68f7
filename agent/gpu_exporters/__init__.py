"""Programs that export GPUs' figures, one a file; found by this folder."""
