"""What an on-call engineer opens at night."""
