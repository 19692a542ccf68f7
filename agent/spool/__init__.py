"""What waits on disk to be sent: one folder a producer, append-only segments."""
