"""The spec language: versions, parser, printing, matching, Python requirements. Import the modules, not this."""
