"""Endpoints for programs: JSON in, JSON out."""
