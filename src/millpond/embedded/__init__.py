"""Finds or starts a local Redis or Valkey server, so that nobody has to install one."""
