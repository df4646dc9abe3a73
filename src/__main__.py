"""``python -m cachefetch`` and the console script."""

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from . import __version__

        sys.stdout.write(f"cachefetch {__version__}\n")
        return 0
    import gc

    from .cli import end_on_sigterm, run

    end_on_sigterm()
    # Decoding makes many small values and no cycles: by default the collector would look at them again and again.
    gc.set_threshold(100_000, 20, 20)
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
