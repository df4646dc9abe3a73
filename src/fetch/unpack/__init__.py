"""Unpacking archives of packages: expanding, reading members, checking them, writing them."""
