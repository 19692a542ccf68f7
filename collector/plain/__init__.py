"""Small segments taken apart here instead of in the engine: the same rows, at a tenth of what analysing views costs."""
