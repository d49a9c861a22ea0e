"""Pure planning: memory need, eviction, plans, times, states. No Django, no I/O, no clock, no log. A leaf: imports nothing of Gantry."""
