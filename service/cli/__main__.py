"""``python -m service.cli`` is ``kvorum``."""

from service.cli.main import main

main()
