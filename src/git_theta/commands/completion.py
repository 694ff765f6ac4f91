"""`git theta completion`: the script that lets a shell complete commands, options and paths."""

import click
from click.shell_completion import get_completion_class

__all__ = ["COMPLETE_VARIABLE", "command"]

COMPLETE_VARIABLE = "_GIT_THETA_COMPLETE"
_PROGRAM = "git-theta"
# Where to put the script, and what makes `git theta <TAB>` work beside `git-theta <TAB>`: Git's own completion calls a
# function of this name, with the words of the whole line (bash) or of what follows `git` (zsh).
_SHELLS = {
    "bash": (
        'add to ~/.bashrc: eval "$(git theta completion bash)"',
        """_git_theta() {
    local start=${__git_cmd_idx:-1}
    local COMP_WORDS=(git-theta "${COMP_WORDS[@]:start+1}") COMP_CWORD=$((COMP_CWORD - start))
    %(function)s git-theta
}
""",
    ),
    "zsh": (
        'add to ~/.zshrc, after compinit: eval "$(git theta completion zsh)"',
        """_git-theta() { %(function)s; }
zstyle ':completion:*:*:git:*' user-commands theta:'version checkpoints'
""",
    ),
    "fish": ("run once: git theta completion fish > ~/.config/fish/completions/git-theta.fish", ""),
}


@click.command(short_help="Print a script for completion in your shell.")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and paths in SHELL; its first line says where it goes."""
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101  # the choice above has click's own three
    completion = found(context.find_root().command, {}, _PROGRAM, COMPLETE_VARIABLE)
    advice, more = _SHELLS[shell]
    print(f"# {advice}")
    # `source()` would start bash to learn its version; what the script needs is in bash 4.4 of 2016.
    print(completion.source_template % completion.source_vars())
    print(more % {"function": completion.func_name})
