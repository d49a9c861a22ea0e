"""How often something may happen, counted where all processes see it."""
