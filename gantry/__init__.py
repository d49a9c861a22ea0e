"""Gantry: the control tower of a shared model server."""
