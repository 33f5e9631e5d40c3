"""The house rules that a machine can check: walls, sizes, words, and that what is written is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lisa_video.cli import app
from lisa_video.config.load import dump_config, load_config

ROOT = Path(__file__).parents[1]
ROOMS = ("lisa_video", "data_tools", "eval", "tests", "benchmarks")
PACKAGES = ("lisa_video", "data_tools", "eval")
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".txt", ".json", ".cfg", ".sh", ""}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 80

PYTHON_FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def own_files() -> list[Path]:
    """Files of the repository, without what is ignored or made."""
    files = []
    for top in ROOT.iterdir():
        hidden = top.name.startswith(".") and top.name not in (".ci", ".gitignore")
        if hidden or top.name in ("runs", "build", "dist", "__pycache__") or top.name.endswith(".egg-info"):
            continue
        files += [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return [path for path in files if path.parent.name != "__pycache__" and path.parent.suffix != ".egg-info"]


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in PYTHON_FILES:
        yield relative(path), ast.parse(path.read_text(encoding="utf-8"))


def test_the_rules_see_the_files():
    assert len(PYTHON_FILES) > 100 and ROOT / "lisa_video/objective.py" in PYTHON_FILES
    assert {relative(path) for path in own_files()} >= {"README.md", ".ci/run", "pyproject.toml"}


def test_imports_run_down_only():
    # A process of its own: import-linter's logging settings would silence our loggers in all tests that follow.
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout


def test_files_are_short():
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON_FILES}
    assert not {name: length for name, length in lengths.items() if length > MAX_FILE_LINES}


def test_functions_are_short():
    long = {
        f"{name}:{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert not long


def test_every_module_says_what_it_is():
    assert not [name for name, tree in parsed() if not ast.get_docstring(tree)]


def test_package_faces_hold_no_code():
    for name, tree in parsed():
        if name.endswith("__init__.py"):
            assert len(tree.body) <= 2, name  # docstring, and the version at most


def test_no_drawer_named_utils():
    drawers = re.compile(r"(^|_)(utils?|helpers?|misc|common|stuff)($|_)")
    assert not [relative(p) for p in PYTHON_FILES if any(drawers.search(Path(part).stem) for part in p.parts[-4:])]


def test_builtin_eval_is_never_hidden():
    for name, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "eval" and not a.asname for a in node.names), name
            if isinstance(node, ast.ImportFrom):
                assert not any((a.asname or a.name) == "eval" for a in node.names), name


def test_every_room_is_a_package():
    # A wheel, import-linter and a fresh clone leave a folder without this file out.
    rooms = {path.parent for path in PYTHON_FILES if relative(path).split("/")[0] in PACKAGES}
    assert not [relative(room) for room in rooms if not (room / "__init__.py").is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_file_of_ours():
    # A pattern for made folders ("runs/") that is not tied to the root once kept a new file of eval/runs out.
    files = "\0".join(relative(path) for path in own_files())
    command = ["git", "check-ignore", "--no-index", "--stdin", "-z"]
    result = subprocess.run(command, input=files, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (result.returncode, result.stdout) == (1, ""), result.stdout + result.stderr


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_loads_and_says_what_it_is_for(path, tmp_path):
    config = load_config(path)
    (tmp_path / "dump.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "dump.yaml") == config
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_path_in_the_documents_exists(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(
        r"(?<![\w/.\-])(?:lisa_video|data_tools|eval|configs|docs|tests|benchmarks|\.ci)/[\w./*\-]*\w", text
    )
    missing = [name for name in named if not list(ROOT.glob(name))]
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    missing += [target for target in targets if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_module_in_the_documents_exists(path):
    for dotted in re.findall(
        r"(?<![\w/.\-\"])(?:lisa_video|data_tools|eval)(?:\.\w+)+", path.read_text(encoding="utf-8")
    ):
        parts = dotted.split(".")
        if parts[-1] in ("py", "git"):
            continue
        stems = [ROOT.joinpath(*parts[:end]) for end in range(len(parts), 0, -1)]
        depth = next(
            len(parts) - i for i, stem in enumerate(stems) if stem.is_dir() or stem.with_suffix(".py").is_file()
        )
        source = ROOT.joinpath(*parts[:depth]).with_suffix(".py")
        rest = parts[depth:]
        assert not rest or (source.is_file() and re.search(rf"\b{rest[0]}\b", source.read_text(encoding="utf-8"))), (
            dotted
        )


def test_nothing_names_this_machine_or_a_private_registry():
    folders = "|".join(["work", "home", "root", "Users", "mnt", "scratch"])
    machine = re.compile(rf"(?<![\w.~\-/])/(?:{folders})/\w|--(?:extra-)?index-" + r"url|(?:\d{1,3}\.){3}\d{1,3}:\d+")
    found = [
        f"{relative(path)}:{number}"
        for path in own_files()
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine.search(line)
    ]
    assert not found


def commands(group: typer.core.TyperGroup, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*prefix, name))


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output
    is_group = not command or any(other[: len(command)] == command != other for other in COMMANDS)
    assert is_group or "Example" in result.output


@pytest.mark.parametrize(
    "command", [[str(Path(sys.executable).parent / "lisa-video")], [sys.executable, "-m", "lisa_video.train"]], ids=str
)
def test_installed_commands_start(command):
    result = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0 and "usage" in result.stdout.lower(), result.stderr


def test_help_does_not_wait_for_torch():
    code = "import sys, lisa_video.cli, lisa_video.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("command", [["-m", "lisa_video.cli", "train"], ["-m", "lisa_video.train"]], ids=" ".join)
def test_mistakes_of_the_user_are_one_message_and_status_2(command, tmp_path):
    arguments = [sys.executable, *command, str(tmp_path / "none.yaml"), "--dry-run"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 2
    assert "no such config file" in result.stderr and "Traceback" not in result.stderr
