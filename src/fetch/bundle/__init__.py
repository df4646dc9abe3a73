"""Bundles: a mirror, or what changed in it, as files for removable media."""
