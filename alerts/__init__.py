"""SLOs, burn-rate rules, incidents and their delivery."""
