"""`git theta completion`: scripts that real shells read, and the answers that they ask for."""

import shutil
import subprocess

import pytest

from tests.repositories import Repo


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_begins_with_how_to_install_it(repo: Repo, shell: str) -> None:
    out = repo.ok("completion", shell)
    assert out.startswith("# ")
    assert f"git theta completion {shell}" in out.splitlines()[0]
    assert "_GIT_THETA_COMPLETE" in out
    found = shutil.which(shell)
    if found:
        subprocess.run([found, "-n"], input=out.encode(), check=True)


def test_unknown_shell_is_a_usage_error(repo: Repo) -> None:
    assert repo.theta("completion", "tcsh").code == 2


@pytest.mark.parametrize(
    ("words", "index", "expected"), [("git-theta st", "1", "status"), ("git-theta info --", "2", "--full")]
)
def test_answers(repo: Repo, words: str, index: str, expected: str) -> None:
    done = repo.run_theta(_GIT_THETA_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=index)
    assert f"plain,{expected}" in done.out.splitlines()


@pytest.mark.skipif(not shutil.which("bash"), reason="this machine has no bash")
@pytest.mark.parametrize(
    ("function", "words"),
    [("_git_theta_completion", "git-theta ls"), ("_git_theta", "git theta ls"), ("_git_theta", "git -C . theta ls")],
)
def test_bash_completes_both_spellings(repo: Repo, function: str, words: str) -> None:
    count = len(words.split()) - 1
    script = (
        'complete() { :; }; compopt() { :; }; eval "$(git-theta completion bash)"; '
        f"COMP_WORDS=({words}); COMP_CWORD={count}; __git_cmd_idx={count - 1}; "
        f'{function} git-theta; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd=repo.path)
    assert done.stdout.decode().strip() == "ls-files"
