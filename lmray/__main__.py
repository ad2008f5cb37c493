"""`python -m lmray` is `lmray`."""

from lmray.cli.main import main

main()
