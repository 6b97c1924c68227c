"""One account's night, by several clients: `night.py` has it happen, `draw.py` draws what came.

`tests/rig.py` serves here too.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
