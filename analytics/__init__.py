"""The questions as functions of a selection."""
