"""`/healthz` and `/readyz`, answered before anything else."""
