"""Gantry's own pages under /admin/."""
