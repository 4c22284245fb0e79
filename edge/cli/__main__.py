"""`python -m edge.cli` is `popctl`."""

from edge.cli import main

main()
