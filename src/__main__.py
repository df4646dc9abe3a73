"""``python -m cachefetch`` and the console script."""

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from . import __version__

        sys.stdout.write(f"cachefetch {__version__}\n")
        return 0
    from . import signals

    try:
        signals.take_over()  # first of all: what comes before it ends in a traceback
        import gc

        from .cli import run

        # Decoding makes many small values and no cycles: by default the collector would look at them again and again.
        gc.set_threshold(100_000, 20, 20)
        code = run(sys.argv[1:])
        signals.let_go()
        return code
    except KeyboardInterrupt as stopped:  # while modules were loaded, or when all was said
        signals.let_go()
        from .cli import report

        return report.report_interruption(stopped)


if __name__ == "__main__":
    sys.exit(main())
