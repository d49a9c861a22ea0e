"""Endpoints for programs: REST, streams and WebSockets. All of it is thin: `models_admin.actions` does the work."""
