"""The tree is as docs/architecture.md draws it: who may import whom, and what is linked."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "millpond"

#: From the top down. A module may import its own part and any layer below, nothing beside or above.
LAYERS: list[set[str]] = [
    {"cli"},
    {"cli_both", "cli_config", "cli_orgs", "cli_desk"},
    {"cli_operate", "cli_keys", "cli_models", "cli_jobs", "cli_bootstrap"},
    {
        "cli_own",
        "cli_users",
        "cli_api_keys",
        "cli_access",
        "cli_purge",
        "cli_doctor",
        "cli_run_service",
    },
    {"cli_api_jobs", "cli_operator", "cli_own_key"},
    {"cli_ask"},
    {"cli_service"},
    {"cli_tell"},
    {"cli_asked"},
    {"cli_serve"},
    {"cli_values", "cli_do"},
    {"run", "operate"},
    {"producer", "scheduler", "worker"},
    {"standing"},
    {"providers"},
    {"store", "embedded"},
    {"settings", "logs", "tracing"},
    {"errors"},
    {"domain", "clock", "failpoints"},
]
#: Beside the layers: imports errors, settings and logs at most; only the cli imports it.
APART = {"simulator", "local", "client"}
#: Commands that ask the service over HTTP do it with the client's parts.
ASK_THE_SERVICE = {"cli_service", "cli_both", "cli_run_service"}
DOORS = ("producer", "scheduler", "worker")


def parts() -> list[Path]:
    """Every Python file of the package. (Path.rglob does not follow the links.)"""
    folders = (PACKAGE, *(PACKAGE / door for door in DOORS))
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "millpond":
                names = [f"millpond.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("millpond.")}
    return found


@pytest.mark.parametrize("path", parts(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        return
    level = {name: depth for depth, names in enumerate(LAYERS) for name in names}
    allowed = {part, "__version__"}
    if part in APART:
        allowed |= {"errors", "settings", "logs"}
    else:
        allowed |= {name for name, depth in level.items() if depth > level[part]}
        if part == "cli":
            allowed |= APART
        if part in ASK_THE_SERVICE:
            allowed |= {"client"}

    assert imports(path) <= allowed


def test_the_three_doors_are_links_to_the_folders_at_the_top() -> None:
    for door in DOORS:
        link = PACKAGE / door
        assert link.is_symlink()
        assert link.resolve() == ROOT / door


def test_only_one_module_imports_arq() -> None:
    using = [
        path.name
        for path in parts()
        if re.search(r"^(from|import) arq\b", path.read_text(), re.MULTILINE)
    ]
    assert using == ["background.py"]


def test_the_architecture_names_every_file() -> None:
    """A new file has a place in the picture, or the picture is wrong."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = {path.name for path in parts() if path.name != "__init__.py"} - set(
        re.findall(r"[a-z_]+\.py", text)
    )
    assert not missing


def test_no_two_test_files_have_one_name() -> None:
    """They could not be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_the_lock_files_name_no_host() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"https?://|--index|--find-links", lock.read_text())


def test_the_repository_has_no_file_that_git_would_not_see() -> None:
    """What tests pass with is what is committed: nothing needed is ignored."""
    told = subprocess.run(
        ["git", "status", "--porcelain", "--ignored", "src", "producer", "scheduler", "worker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if told.returncode != 0:
        pytest.skip("not a git checkout")
    ignored = [row[3:] for row in told.stdout.splitlines() if row.startswith("!!")]
    assert [path for path in ignored if not path.endswith(("__pycache__/", ".egg-info/"))] == []
