"""Chaos: people use a whole Gantry while processes are killed, and after each round what must always hold is looked at."""
