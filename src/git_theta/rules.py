"""Rules: which strategy merges which parameters, by patterns of their names.

The first rule that matches a name, and whose strategy takes values of its kind, counts. Behind the user's rules stand
the built-in ones: counters of batches take the larger number, floats are averaged, and integers and booleans are merged
element by element, a conflict where both sides changed the same element.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from git_theta import plugins
from git_theta.errors import ConfigError
from git_theta.merges.base import BOOLEAN, FLOAT, INTEGER, Merge, Options, Sided, read_options
from git_theta.names import shown

__all__ = ["COPIES", "FILE_NAME", "MAX_FILE_BYTES", "MAX_PATTERN_LENGTH", "SKELETON", "Rule", "Rules"]

FILE_NAME = ".theta-merge.yaml"
"""The file at the top of a repository that has rules (`rulefile`)."""
MAX_FILE_BYTES = 2**20

COPIES = ("ours", "theirs", "base")
"""The strategies that take a value as it is, whatever it is: nothing needs to be loaded."""

SKELETON = "~skeleton"
"""The name under which rules and decisions speak of what a file says beside its parameters; no parameter has it."""

MAX_PATTERN_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """The strategy for names that `pattern` matches as a whole: `*` any text, `?` a character, `[ab]` one of some.

    `added`: merge what both sides added under one name, if it has one dtype and shape. `grown`: where one side added
    rows to a value that both changed, merge the rows that both have and keep the new ones. `files`: the paths of what
    the strategy reads beside the values, by its names for them. `line`: where the pattern stands in a rules file, or 0.
    """

    pattern: str
    strategy: str
    options: Mapping[str, object] = field(default_factory=dict)
    added: bool = False
    grown: bool = False
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.pattern) <= MAX_PATTERN_LENGTH:
            raise ConfigError(f"a pattern has {len(self.pattern)} characters; write one of 1 to {MAX_PATTERN_LENGTH}")
        self.parsed()
        unread = [name for name in self.files if name not in self.merge.files]
        if unread:
            has = f"it reads {', '.join(self.merge.files)}" if self.merge.files else "it reads none"
            raise ConfigError(f"strategy '{self.strategy}': there is no file '{shown(unread[0][:40])}'; {has}")
        missing = [name for name in sorted(self.sided) if not self.files.get(name)]
        if missing:
            raise ConfigError(
                f"strategy '{self.strategy}' needs '{missing[0]}' files; name one for each side under 'files' in "
                f".theta-merge.yaml, or: git theta merge --file {missing[0]}=OURS,THEIRS"
            )

    @property
    def merge(self) -> Merge:
        return plugins.merge(self.strategy)

    @property
    def sided(self) -> frozenset[str]:
        """The names of files of which the strategy needs one for each side."""
        return self.merge.sided if isinstance(self.merge, Sided) else frozenset()

    def parsed(self) -> Options:
        """The options; raises ConfigError where the strategy has no such."""
        return read_options(self.merge, self.options)

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


_BUILT_IN: Mapping[str, tuple[Rule, ...]] = {
    FLOAT: (Rule("*", "average"),),
    **dict.fromkeys(
        (INTEGER, BOOLEAN),
        (Rule("*num_batches_tracked", "max"), Rule("*", "three-way", {"inner": "conflict"})),
    ),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a merge, in order."""

    rules: tuple[Rule, ...] = ()

    def find(self, name: str, kind: str | None) -> Rule | None:
        """The rule for a parameter whose values are of a kind (`merges.base`); None where they cannot be merged."""
        fitting = (rule for rule in self.rules if rule.strategy in COPIES or kind in rule.merge.kinds)
        return next((rule for rule in (*fitting, *_BUILT_IN.get(kind or "", ())) if rule.matches(name)), None)

    def find_beside(self, name: str, kind: str | None) -> Rule | None:
        """The rule for something beside the parameters, "~skeleton/..."; one for SKELETON is for all of it.

        One that computes must name it, or SKELETON.
        """
        for rule in self.rules:
            computes = rule.strategy not in COPIES
            fits = kind in rule.merge.kinds and rule.pattern.startswith(SKELETON) if computes else True
            if fits and (rule.matches(name) or rule.matches(SKELETON)):
                return rule
        return None

    def check_used(self, names: Collection[str]) -> None:
        """Raise ConfigError for a rule that matches none of the names: most likely it is misspelt."""
        for rule in self.rules:
            if not any(rule.matches(name) for name in names):
                raise ConfigError(
                    f"the pattern '{shown(rule.pattern[:80])}' matches no parameter; to see their names: "
                    "git theta info --full PATH"
                )
