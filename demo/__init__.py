"""Real model servers with real traffic, started by the demo command."""
