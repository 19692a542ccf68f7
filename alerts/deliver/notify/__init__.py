"""One file per way to tell somebody."""
