"""A peer's own environment: made when it is first asked for, and kept.

It lives in the folder that MILLPOND_BENCH names, or in ~/.cache/millpond-bench. Its name holds a
digest of the requirements, so other requirements are another environment.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


def python_of(requirements: str) -> Path:
    """The interpreter of the environment with these requirements."""
    lock = REQUIREMENTS / f"{requirements}.lock"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _kept() / f"{requirements}-{digest}"
    complete = folder / "complete"
    python = folder / "bin" / "python"
    if not complete.exists():
        print(f"making the environment of {requirements}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [
                *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "-r", str(lock)),
            ],
            stdout=sys.stderr,
            check=True,
        )
        complete.touch()
    return python


def _kept() -> Path:
    named = os.environ.get("MILLPOND_BENCH")
    return Path(named) if named else Path.home() / ".cache" / "millpond-bench"
