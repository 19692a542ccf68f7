"""Rules: what a file states, each kind by itself, and what they become."""
