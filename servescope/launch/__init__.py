"""From settings to running processes: the plan, its ports, the supervisor, and a part for the moment of one command."""
