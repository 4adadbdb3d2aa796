"""Runs the real supervisor over the two stand-ins. Arguments: NAME=VALUE, put into the environment."""

import ctypes
import os
import sys
from pathlib import Path

from service import logs
from service.errors import KvorumError
from service.reloading import Sources
from service.supervisor.server import Supervisor

PR_SET_CHILD_SUBREAPER = 36
here = Path(__file__).parent
os.environ.update(argument.split("=", 1) for argument in sys.argv[1:])
if os.environ.get("STAND_IN_SUBREAPER"):
    # Orphans come to this process then, as they come to PID 1 of a container.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
sources = Sources.from_environ(os.environ)
settings = sources.read()
logs.configure(settings.log_level, settings.log_format, settings.name)
try:
    code = Supervisor(settings, sources, (sys.executable, str(here / "agent.py")), (sys.executable, str(here / "web.py"))).run()
except KvorumError as error:
    sys.stderr.write(f"{error}\n")
    code = error.exit_code
sys.exit(code)
