"""Mirrors as destinations: sync in four steps (inventory, plan, execute, check), and the audit of a mirror."""
