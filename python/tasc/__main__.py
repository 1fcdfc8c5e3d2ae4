"""`python -m tasc`: the command `tasc`, where its script is not on the path."""

from tasc.cli import main

main()
