"""``python -m pristina``."""

from pristina.cli import main

main()
