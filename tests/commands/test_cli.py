"""The command line as a whole: what is loaded when, errors as exit codes, terminals, and the documentation."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from git_theta import __version__, cli, errors
from git_theta.commands import output
from tests.repositories import Repo, model, scripts_path

ROOT = Path(__file__).parents[2]
HEAVY = {"rich", "numpy", "sqlite3", "blake3", "zstandard", "torch", "concurrent.futures.thread"}

ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ThetaError)]


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.group)
    names = cli.group.list_commands(context)
    return {name: command for name in names if (command := cli.group.get_command(context, name))}


@pytest.mark.parametrize("arguments", [["--version"], ["ls-files"], ["install"], ["track", "*.pt"], ["--help"]])
def test_commands_load_only_what_they_need(tracked: Repo, arguments: list[str]) -> None:
    code = (
        "import sys; from git_theta import cli; code = cli.run(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tracked.path, capture_output=True, check=True)
    loaded = HEAVY.intersection(done.stderr.decode().split("\n"))
    assert not loaded


def test_version(home: Path) -> None:
    assert Repo(home).ok("--version") == f"git-theta {__version__}\n"


def test_script_is_found_by_git(tracked: Repo) -> None:
    assert "a.safetensors" in tracked.git("theta", "ls-files")
    assert tracked.git("theta", "-h").startswith("Usage: git theta ")


@pytest.mark.parametrize("arguments", [("frobnicate",), ("status", "--frobnicate"), ("info",), ("untrack",)])
def test_wrong_usage(tracked: Repo, arguments: tuple[str, ...]) -> None:
    done = tracked.theta(*arguments)
    assert done.code == 2
    assert done.err.startswith("Usage: git theta")


@pytest.mark.parametrize("kind", ERRORS)
def test_expected_errors_are_one_line_and_their_own_exit_code(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch, kind: type[errors.ThetaError]
) -> None:
    def fail() -> None:
        raise kind("where: what is wrong; what to do")

    monkeypatch.setattr("git_theta.commands.status.open_place", fail)
    assert tracked.fails(kind.exit_code, "status") == "git-theta: where: what is wrong; what to do\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "Permission denied", "x"), 7), (OSError(28, "No space left on device", "x"), 8)],
    ids=["permission", "space"],
)
def test_errors_of_the_system_are_one_line(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("git_theta.commands.status.open_place", fail)
    assert tracked.fails(code, "status") == f"git-theta: x: {error.strerror}\n"


def test_unexpected_error_leaves_a_log(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("a bug of ours")

    monkeypatch.setattr("git_theta.commands.status.open_place", fail)
    said = tracked.fails(errors.EXIT_BUG, "status")
    log = Path(said.split()[-1])
    assert log.parent == tracked.path / ".git" / "theta" / "logs"
    assert "a bug of ours" in log.read_text()


def test_unexpected_error_outside_of_a_repository(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("a bug of ours")

    monkeypatch.setattr("git_theta.commands.status.open_place", fail)
    done = Repo(home).theta("status")
    assert done.code == errors.EXIT_BUG
    assert "a bug of ours" in done.err


def test_interrupt(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("git_theta.commands.status.open_place", interrupt)
    assert tracked.theta("status").code == 130


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /dev/full and no SIGPIPE")
def test_reader_that_has_gone_is_no_error(tracked: Repo) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [scripts_path() / "git-theta", "info", "a.safetensors"],
            cwd=tracked.path,
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode in (1, 141)


def test_relative_git_dir_of_the_caller(tracked: Repo, home: Path) -> None:
    git_dir = os.path.relpath(tracked.path / ".git", home)
    listed = Repo(home).git("--git-dir", git_dir, "--work-tree", "../repo", "theta", "ls-files")
    assert [line.split()[-1] for line in listed.splitlines()] == ["a.safetensors", "sub/b.safetensors"]


def in_terminal(repo: Repo, *arguments: str, **variables: str) -> str:
    """What a command prints on a terminal."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LC_ALL": "C.UTF-8"} | variables
    script = scripts_path() / "git-theta"
    process = subprocess.Popen([script, *arguments], cwd=repo.path, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    said = b""
    try:
        while block := os.read(master, 65536):
            said += block
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(master)
    assert process.wait() == 0
    return said.decode()


def test_tables_and_progress_on_a_terminal(tracked: Repo) -> None:
    assert "─" in in_terminal(tracked, "info", "a.safetensors")
    tracked.dematerialise("a.safetensors")
    said = in_terminal(tracked, "checkout")
    assert "checked out 1 file" in said
    assert tracked.read("a.safetensors") == model(0)


def test_markup_in_names_is_not_read_on_a_terminal(repo: Repo) -> None:
    repo.track("*.pt")
    name = "[bold]x[/bold]\x1b[31m.pt"
    repo.write(name, model())
    repo.git("add", "--all")
    assert "[bold]x[/bold]\\u001b[31m.pt" in in_terminal(repo, "ls-files")
    (repo.path / name).unlink()
    in_terminal(repo, "checkout")
    assert repo.read(name) == model()


def test_no_color_is_respected(tracked: Repo) -> None:
    assert "\x1b[" in in_terminal(tracked, "info", "a.safetensors")
    assert "\x1b[3" not in in_terminal(tracked, "info", "a.safetensors", NO_COLOR="1")


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (1_949_999, "1.9 MB"),
        (999_960, "1.0 MB"),
        (735_163_440, "735.2 MB"),
    ],
)
def test_sizes(size_bytes: int, expected: str) -> None:
    assert output.size(size_bytes) == expected


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    for name, command in commands().items():
        section = next(body for title, body in sections.items() if f"git theta {name}" in title.split(", "))
        verbs = command.commands.values() if isinstance(command, click.Group) else ()
        for parameter in (parameter for verb in (command, *verbs) for parameter in verb.params):
            for spelling in (*parameter.opts, *parameter.secondary_opts) if isinstance(parameter, click.Option) else ():
                assert f"`{spelling}" in section, (name, spelling)
        assert all(verb.help for verb in (command, *verbs))
    for option in ("--version", "-h", "--help"):
        assert f"`{option}`" in text


def test_every_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    codes = {kind.exit_code for kind in ERRORS} | {errors.EXIT_BUG, 0, 2, 130}
    assert all(f"\n| {code} |" in text for code in codes)


def test_every_setting_is_documented() -> None:
    from git_theta.config import _KEYS

    text = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in _KEYS)
    assert "`GIT_THETA_SKIP_SMUDGE`" in text
