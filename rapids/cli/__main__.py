"""`python -m rapids.cli` is the command `rapids`."""

from rapids.cli import main

main()
