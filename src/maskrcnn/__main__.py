"""``python -m maskrcnn``."""

from maskrcnn.cli import main

main()
