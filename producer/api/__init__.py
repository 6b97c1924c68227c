"""The HTTP API: what it takes and tells, and the routes."""
