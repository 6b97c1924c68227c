"""How well admission keeps a provider's limits and uses them, with whole processes: `rows.py`.

`tests/rig.py` and `tests/stepped.py`, which start the program as its users meet it, serve here too.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
