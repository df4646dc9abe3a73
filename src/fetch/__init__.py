"""Moves and proves bytes: transports, verification, the content-addressed store, the engine."""
