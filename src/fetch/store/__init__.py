"""Where verified bytes are kept."""
