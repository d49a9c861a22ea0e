"""Gantry's own API, under /api/v1/. Thin: each operation checks a right, calls an action of `models_admin`, and says what came of it."""
