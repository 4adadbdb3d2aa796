"""``python -m service.agent``: run the agent of a node; see :mod:`service.agent.main`."""

import sys

from service.agent.main import main

sys.exit(main())
