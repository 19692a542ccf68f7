"""The commands, found by their files: `<name>.py` holds the command `<name>`."""
