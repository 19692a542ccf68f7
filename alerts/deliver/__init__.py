"""From an incident to a message that arrived."""
