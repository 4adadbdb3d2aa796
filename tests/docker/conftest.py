"""The tests here share modules with the programs beside them, which are found in this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
