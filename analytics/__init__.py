"""The questions as functions of a window and a filter."""
