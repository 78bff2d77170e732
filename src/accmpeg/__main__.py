"""`python -m accmpeg` is the `accmpeg` command; its console script begins here too."""

import signal

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # Ctrl-C within the second that the imports below take would end in a traceback: nothing is lost yet.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from accmpeg.cli import main as command

    signal.signal(signal.SIGINT, before)
    command()


if __name__ == "__main__":
    main()
