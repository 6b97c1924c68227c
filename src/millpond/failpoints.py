"""Places at which a crash test lets a process die as by `kill -9`.

`MILLPOND_FAIL_AT=NAME:N` names one: the process that comes by it for the N-th time (1, if no N is
given) dies there. With `MILLPOND_FAIL_MARK=PATH` only the first one does, and leaves that file.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

AT = "MILLPOND_FAIL_AT"
MARK = "MILLPOND_FAIL_MARK"
#: No settings: they are for tests, and all processes of a run get them.
VARIABLES = frozenset({AT, MARK})


def _never(name: str) -> None:
    pass


def _from(variables: Mapping[str, str]) -> Callable[[str], None]:
    if AT not in variables:
        return _never
    point, _, number = variables[AT].partition(":")
    mark = Path(variables[MARK]) if MARK in variables else None
    left = int(number or "1")

    def count(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0 and _is_first(mark):
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def _is_first(mark: Path | None) -> bool:
    if mark is not None:
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


#: `reached("pump.turn.before")`: the process is at this point. Nothing, unless a test says so.
reached = _from(os.environ)
