"""What starves an engine on its machine: processes, their cages, the machine itself."""
