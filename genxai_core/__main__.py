"""``python -m genxai_core`` is the program ``genxai``."""

from .cli import main

main()
