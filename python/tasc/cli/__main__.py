"""`python -m tasc.cli`, for launchers of several processes such as `torchrun -m tasc.cli`."""

from tasc.cli import main

main()
