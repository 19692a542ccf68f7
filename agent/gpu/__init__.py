"""What NVIDIA's driver library tells of GPUs: calls that may hang, figures, faults, and whose processes they run."""
