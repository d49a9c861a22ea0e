"""What memory there is: NVML, RAM, or a fixed pool. Knows nothing of Django."""
