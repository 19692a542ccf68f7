"""Faults done to real servers, each recorded with what was done and what its clients saw."""
