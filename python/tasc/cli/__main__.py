"""`python -m tasc.cli`, for launchers of several processes such as `accelerate launch -m tasc.cli`."""

from tasc.cli import main

main()
