"""`python -m accmpeg` is the `accmpeg` command."""

from accmpeg.cli import main

main()
