"""The only caller of Git: one argv list per call, never a shell, its exit code checked and its stderr kept apart.

Plumbing commands with NUL-separated output; no object or ref format is read here, so SHA-256 repositories, worktrees
and partial clones need no special case (docs/design/002-calling-git.md).
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta import indexfile
from git_theta.errors import InputError, RepositoryError
from git_theta.names import shown_path

__all__ = ["IndexEntry", "Repository", "blob_named", "complaint", "discover", "run", "run_attached", "version"]


MAX_ARGUMENTS = 256
NO_GIT = "git is not on the PATH; install Git 2.25 or newer"
_TRUST = "git config --global --add safe.directory "
_NOTES = ("*_HEAD", "AUTO_MERGE", "MERGE_AUTOSTASH", "rebase-*/*", "sequencer/*", "refs/*/**/*")
_VERSION = re.compile(r"(\d+)\.(\d+)")
_OID = re.compile(r"^(?:[0-9a-f]{64}|[0-9a-f]{40})\b", re.MULTILINE)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: bytes = b"",
    accept: Sequence[int] = (0,),
    environ: Mapping[str, str] | None = None,
) -> bytes:
    """What `git <arguments>` prints; raises RepositoryError with Git's own line unless it exits with `accept`.

    `environ` is added to this process's environment.
    """
    variables = None if environ is None else {**os.environ, **environ}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, input=stdin, capture_output=True, check=False, env=variables
        )
    except FileNotFoundError as error:
        raise RepositoryError(NO_GIT) from error
    if done.returncode not in accept:
        words = " ".join([word for word in arguments[:4] if word != "--literal-pathspecs"][:3])
        raise RepositoryError(f"git {shown_path(words)} failed: {complaint(done.stderr, done.returncode)}")
    return done.stdout


def run_attached(arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str] | None = None) -> int:
    """The exit code of `git <arguments>`, whose output the user sees; `environ` is added to the environment."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=cwd, check=False, env={**os.environ, **(environ or {})}
        ).returncode
    except FileNotFoundError as error:
        raise RepositoryError(NO_GIT) from error


def complaint(stderr: bytes, code: int) -> str:
    """The line of Git's that says what is wrong, and the command that has Git trust a repository of someone else."""
    said = stderr.decode("utf-8", "replace").strip().splitlines()
    grave = [line for line in said if line.startswith(("fatal: ", "error: "))]
    trust = [f"if you trust it, run: {line.strip()}" for line in said if _TRUST in line]
    return shown_path("; ".join([(grave or said or [f"exit {code}"])[-1].strip(), *trust[:1]]))


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A file in the index at stage 0: `path` in the repository, `mode` such as "100644", `oid` of its blob.

    `sparse`: a sparse checkout leaves it out of the worktree.
    """

    path: bytes
    mode: str
    oid: str
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of Git's raw format (git-diff(1), "RAW OUTPUT FORMAT"): a file before and after, its oid "" where unknown
    or where there is none. `old_path` is another path than `path` where it was renamed or copied.
    """

    status: str
    old_mode: str
    mode: str
    before: str
    after: str
    old_path: bytes
    path: bytes


def raw_row(head: bytes, fields: Iterator[bytes]) -> RawRow:
    """The row that begins with this field of `-z`, and goes on with the next one or two."""
    old_mode, mode, *oids, status = head.removeprefix(b":").decode().split(" ")
    before, after = (oid if oid.strip("0") else "" for oid in oids)
    old_path = next(fields)
    return RawRow(status[0], old_mode, mode, before, after, old_path, next(fields) if status[0] in "RC" else old_path)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: `worktree` is None in a bare one; `common_dir` is shared by linked worktrees, `git_dir` is not."""

    worktree: Path | None
    git_dir: Path
    common_dir: Path

    @property
    def theta_dir(self) -> Path:
        """Where Git-Theta keeps its objects and its catalogue."""
        return self.common_dir / "theta"

    @property
    def base(self) -> Path:
        """Where Git is started: the worktree's root, or the repository itself where it is bare."""
        return self.worktree or self.git_dir

    def top(self) -> Path:
        """The worktree's root; raises RepositoryError in a bare repository."""
        if self.worktree is None:
            raise RepositoryError(f"{self.git_dir}: a bare repository has no files; run this in a worktree")
        return self.worktree

    def path_of(self, argument: str, cwd: Path) -> bytes:
        """The repository's path for one given relative to `cwd`, "." for the root; raises InputError outside of it."""
        top = self.top()
        given = Path(os.path.normpath(cwd / argument))
        # A path may come through a link to the worktree; its own last part is never followed.
        for path in (given, given.parent.resolve() / given.name):
            if path.is_relative_to(top):
                return os.fsencode(path.relative_to(top).as_posix())
        raise InputError(f"{shown_path(argument)}: it lies outside of the repository {shown_path(str(top))}")

    def git(self, *arguments: str, stdin: bytes = b"", accept: Sequence[int] = (0,)) -> bytes:
        """`run` from the worktree's root, so that paths are the repository's; without one, from the git directory."""
        return run(["--literal-pathspecs", *arguments], cwd=self.base, stdin=stdin, accept=accept)

    def config(self, *sections: str) -> dict[str, str | None]:
        """Every setting in `sections` ("theta"), keys in lower case; the last value wins, None means no "="."""
        listing = self.git("config", "-z", "--get-regexp", rf"^({'|'.join(sections)})\.", accept=(0, 1))
        values: dict[str, str | None] = {}
        for item in listing.split(b"\0")[:-1]:
            key, equals, value = item.decode("utf-8", "surrogateescape").partition("\n")
            values[key.lower()] = value if equals else None
        return values

    def index(self, paths: Iterable[bytes] = (), environ: Mapping[str, str] | None = None) -> list[IndexEntry]:
        """The entries of the index at or below `paths`, or all; unmerged ones are left out.

        `environ` may name another index.
        """
        words = ["--literal-pathspecs", "ls-files", "-s", "-t", "-z", "--", *map(os.fsdecode, paths)]
        listing = run(words, cwd=self.base, environ=environ)
        entries = []
        for row in listing.split(b"\0")[:-1]:
            head, _, path = row.partition(b"\t")
            tag, mode, oid, stage = head.decode().split(" ")
            if stage == "0":
                entries.append(IndexEntry(path, mode, oid, tag == "S"))
        return entries

    def make_index(self) -> bool:
        """Have the index that a clone lacks if its checkout failed or was left out: HEAD's; whether there was none."""
        index = self.base / os.fsdecode(self.git("rev-parse", "--git-path", "index")).rstrip("\r\n")
        if index.exists() or not self.git("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1)):
            return False
        self.git("read-tree", "-m", "HEAD")
        if self.git("config", "--type=bool", "--get", "core.sparseCheckout", accept=(0, 1)).strip() == b"true":
            self.git("sparse-checkout", "reapply")
        return True

    def write_missing(self, environ: Mapping[str, str]) -> None:
        """Write the files of the index that the worktree lacks; `environ` is for the filters that Git starts."""
        run(["checkout-index", "--all", "--quiet", "--index"], cwd=self.top(), accept=(0, 1), environ=environ)

    def unmerged(self) -> set[bytes]:
        """The paths that are in conflict."""
        return {row.partition(b"\t")[2] for row in self.git("ls-files", "-u", "-z").split(b"\0")[:-1]}

    def stages(self, path: bytes) -> dict[int, IndexEntry]:
        """What the index has at a path in conflict, by stage: 1 is the common ancestor's, 2 ours, 3 theirs."""
        rows = self.git("--literal-pathspecs", "ls-files", "-u", "-z", "--", os.fsdecode(path)).split(b"\0")[:-1]
        found = {}
        for row in rows:
            words, _, name = row.partition(b"\t")
            mode, oid, stage = words.decode().split(" ")
            if name == path:
                found[int(stage)] = IndexEntry(path, mode, oid)
        return found

    def head(self) -> str | None:
        """The commit that is checked out; None where there is none yet."""
        return self.git("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1)).decode().strip() or None

    def blob_at(self, revision: str, path: bytes) -> str | None:
        """The oid of the blob at a path of a revision; None where there is none, or no such revision."""
        row = self.git("ls-tree", "-z", revision, "--", os.fsdecode(path), accept=(0, 128))
        head = row.partition(b"\t")[0].decode().split(" ")
        return head[2] if len(head) == 3 and head[1] == "blob" else None

    def changes(self, paths: Sequence[bytes] = ()) -> dict[bytes, str]:
        """What `git status` has to say about tracked files that are not clean: two letters, index and worktree.

        The letters are those of git-status(1), "Short Format", with "." for unchanged, or "UU" for any conflict. Cleans
        files whose content Git has to look at.
        """
        # Too many paths for one command line are no reason to ask many times.
        few = list(map(os.fsdecode, paths)) if len(paths) <= MAX_ARGUMENTS else []
        listing = self.git(
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=no",
            "--no-renames",
            "--ignore-submodules=all",
            "--",
            *few,
        )
        found: dict[bytes, str] = {}
        for row in listing.split(b"\0")[:-1]:
            if row.startswith(b"1 "):
                found[row.split(b" ", 8)[8]] = row[2:4].decode()
            elif row.startswith(b"u "):
                found[row.split(b" ", 10)[10]] = "UU"
        return found

    def forget_stat(self, entries: Sequence[IndexEntry]) -> None:
        """Have the index forget how these files lay on the disk, so that Git compares contents when it looks next.

        Without that, a file of another size than the index has noted is modified, whatever its content: a checkpoint in
        place of its manifest, for instance.
        """
        self._update_index(entries)

    def enter(self, entries: Sequence[IndexEntry]) -> None:
        """Put entries into the index, in place of those at their paths; how their files lie, Git looks up later."""
        self._update_index(entries)
        sparse = b"".join(entry.path + b"\0" for entry in entries if entry.sparse)
        if sparse:
            self.git("update-index", "-z", "--skip-worktree", "--stdin", stdin=sparse)

    def _update_index(self, entries: Sequence[IndexEntry]) -> None:
        rows = b"".join(b"%s %s\t%s\0" % (row.mode.encode(), row.oid.encode(), row.path) for row in entries)
        self.git("update-index", "-z", "--index-info", stdin=rows)

    def note_stat(self, files: Mapping[bytes, indexfile.Noted]) -> bool:
        """Note in the index how files lie on the disk that have the content of their blob; False if Git has to look."""
        return "GIT_INDEX_FILE" not in os.environ and indexfile.note(self.git_dir / "index", files)

    def refresh(self, paths: Sequence[bytes]) -> None:
        """Have Git look at these files and note in the index how they lie on the disk, so that a status is quick.

        Only a hint: what Git cannot note, because another process holds the index, it looks at again later.
        """
        paths_z = b"".join(path + b"\0" for path in paths)
        listing = ("--pathspec-from-file=-", "--pathspec-file-nul")
        self.git("add", "--refresh", *listing, stdin=paths_z, accept=(0, 1, 128))

    def stage(self, path: bytes) -> None:
        """`git add` of one file."""
        self.git("add", "--", os.fsdecode(path))

    def attribute_files(self) -> list[bytes]:
        """The `.gitattributes` of the worktree, ignored ones left out."""
        asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":(glob)**/.gitattributes")
        return sorted(set(run(asked, cwd=self.top()).split(b"\0")[:-1]))

    def blob_sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those of the blobs that are here."""
        asked = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
        if not asked:
            return {}
        rows = [row.split(" ") for row in self.git("cat-file", "--batch-check", stdin=asked).decode().splitlines()]
        return {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[1] == "blob"}

    def blobs(self, oids: Sequence[str], max_bytes: int) -> dict[str, bytes]:
        """The contents of those of the blobs that are here and at most `max_bytes` long."""
        small = [oid for oid, size in self.blob_sizes(oids).items() if size <= max_bytes]
        if not small:
            return {}
        output = self.git("cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in small).encode())
        contents: dict[str, bytes] = {}
        start = 0
        for oid in small:
            end = output.index(b"\n", start)
            size = int(output[start:end].split(b" ")[2])
            contents[oid] = output[end + 1 : end + 1 + size]
            start = end + 2 + size
        return contents

    def write_blob(self, content: bytes) -> str:
        """Write a blob into the object database, past every filter; its oid."""
        return self.git("hash-object", "-w", "--stdin", "--no-filters", stdin=content).decode().strip()

    def write_blobs(
        self, contents: Iterable[bytes], environ: Mapping[str, str] | None = None, *, loose: bool = False
    ) -> list[str]:
        """Write blobs into the object database, many of them as one pack unless `loose`; their oids, in that order."""
        stream = bytearray()
        for content in contents:
            stream += b"blob\nmark :1\ndata %d\n%s\nget-mark :1\n" % (len(content), content)
        limit = ("-c", f"fastimport.unpackLimit={2**31 - 1}") if loose else ()
        words = [*limit, "fast-import", "--quiet", "--done"]
        return run(words, cwd=self.base, stdin=bytes(stream + b"done\n"), environ=environ).decode().split()

    def stream_blobs(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each blob and its content, one after another; raises RepositoryError for one that is not here."""
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        with tempfile.TemporaryFile() as listing:
            listing.write(asked)
            listing.seek(0)
            with subprocess.Popen(
                ["git", "cat-file", "--batch"],
                cwd=self.base,
                stdin=listing,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdout is not None  # noqa: S101  # it was asked for
                for oid in oids:
                    head = process.stdout.readline().split(b" ")
                    if len(head) != 3:
                        raise RepositoryError(f"object {oid} cannot be read; run: git fsck")
                    content = process.stdout.read(int(head[2]))
                    process.stdout.read(1)
                    yield oid, content

    def place_of(self, blob: str) -> str:
        """A commit that brought this blob, and its path, "9f2c1ab:model.pt"; "" where none has it."""
        options = ("--all", "--reflog", f"--find-object={blob}", "-m", "--no-renames", "--raw", "--no-abbrev")
        commit = ""
        words = iter(self.git("log", *options, "--format=commit %H", "-z").split(b"\0"))
        for word in words:
            line = word.strip(b"\n")
            if line.startswith(b"commit "):
                commit = line.removeprefix(b"commit ").decode()
            elif line.startswith(b":"):
                path = next(words, b"")
                if line.split(b" ")[3].decode() == blob:
                    return f"{self.git('rev-parse', '--short', commit).decode().strip()}:{os.fsdecode(path)}"
        return ""

    def in_progress(self) -> list[str]:
        """The oids that merges, rebases and the like have noted in files which no walk over refs and reflogs sees.

        Those of every worktree: MERGE_HEAD, the autostash of a rebase, another worktree's refs/bisect, ...
        """
        noted: set[str] = set()
        for folder in (self.common_dir, *(self.common_dir / "worktrees").glob("*/")):
            files = [path for pattern in _NOTES for path in folder.glob(pattern) if path.is_file()]
            for path in files:
                noted.update(_OID.findall(path.read_text("utf-8", "replace")))
        return self.existing(sorted(noted))

    def existing(self, oids: Sequence[str]) -> list[str]:
        """Those of the objects that are here."""
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        rows = self.git("cat-file", "--batch-check", stdin=asked).decode().splitlines() if oids else []
        return [row.split(" ")[0] for row in rows if not row.endswith(" missing")]

    def has_tree(self, commit: str) -> bool:
        """Whether all that a commit's tree needs is here."""
        try:
            self.git("rev-list", "--objects", "--quiet", f"{commit}^{{tree}}")
        except RepositoryError:
            return False
        return True

    def remotes(self) -> list[str]:
        """The names of the remotes."""
        return self.git("remote").decode("utf-8", "surrogateescape").splitlines()

    def branch_remote(self) -> str:
        """The remote that the current branch follows; "" where it follows none."""
        branch = self.git("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1, 128)).decode().strip()
        found = self.git("config", "--get", f"branch.{branch}.remote", accept=(0, 1)) if branch else b""
        return found.decode("utf-8", "surrogateescape").strip()

    def remote_tracking(self, remote: str) -> list[str]:
        """What the remote-tracking refs of a remote point at; none for a URL."""
        if remote not in self.remotes():
            return []
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/remotes/{remote}/").decode().split()

    def remote_reflogs(self) -> list[str]:
        """The commits that remote-tracking refs have pointed at."""
        rows = self.git("rev-list", "--walk-reflogs", "--remotes", accept=(0, 128))
        return list(dict.fromkeys(rows.decode().split()))

    def push_urls(self, remote: str) -> list[str]:
        """Where a remote is pushed to, as configured; none where that is the place it is fetched from."""
        listing = self.git("config", "-z", "--get-regexp", r"^remote\..*\.(push)?url$", accept=(0, 1))
        rows = [item.partition("\n") for item in listing.decode("utf-8", "surrogateescape").split("\0")]
        urls, other = ([url for key, _, url in rows if key == f"remote.{remote}.{name}"] for name in ("url", "pushurl"))
        found = other or urls
        return found if found != urls[:1] else []

    def listed_refs(self, url: str) -> dict[str, str]:
        """The refs of a repository elsewhere and the oids that they point at; RepositoryError if it cannot be asked."""
        rows = self.git("ls-remote", "--", url).decode("utf-8", "replace").splitlines()
        return {name: oid for oid, _, name in (row.partition("\t") for row in rows)}

    def boundary(self, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
        """The commits that `exclude` reaches and that are parents of commits that only `include` reaches."""
        asked = "".join([*(f"{oid}\n" for oid in include), *(f"^{oid}\n" for oid in exclude)]).encode()
        rows = self.git("rev-list", "--boundary", "--stdin", stdin=asked).decode().splitlines()
        return [row[1:] for row in rows if row.startswith("-")]

    def attributes(self, paths: Sequence[bytes], attribute: str) -> dict[bytes, str]:
        """The value of an attribute for each path: "unspecified", "set", "unset" or a word."""
        listing = self.git("check-attr", "-z", "--stdin", attribute, stdin=b"".join(path + b"\0" for path in paths))
        fields = listing.split(b"\0")[:-1]
        return {fields[i]: fields[i + 2].decode("utf-8", "replace") for i in range(0, len(fields), 3)}


def theta_dir() -> Path | None:
    """Where Git-Theta keeps what is kept for the repository around this process; None outside of one."""
    try:
        return discover().theta_dir
    except (RepositoryError, OSError):
        return None


def version() -> tuple[int, int]:
    """The version of Git; (0, 0) if it does not tell."""
    match = _VERSION.search(run(["version"]).decode("utf-8", "replace"))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def blob_named(expression: str, cwd: Path) -> str | None:
    """The oid of what a revision expression ("HEAD~1:model.pt", ":./model.pt") names; None where that is nothing."""
    if expression.startswith("-"):  # it would be an option; `--end-of-options` came with Git 2.30
        return None
    oid = run(["rev-parse", "--verify", "--quiet", expression], cwd=cwd, accept=(0, 1, 128))
    return oid.decode().strip() or None


def discover(cwd: Path | None = None) -> Repository:
    """The repository around `cwd`; raises RepositoryError where there is none."""
    asked = ("--git-dir", "--is-bare-repository", "--git-common-dir", "--is-bare-repository", "--show-toplevel")
    output = run(["rev-parse", *asked], cwd=cwd, accept=(0, 128))  # the last one fails in a bare repository
    # A path may have any character in it, a newline too: what stands between two paths parts them.
    parts = re.split(r"\n(?:true|false)\n", os.fsdecode(output), maxsplit=2)
    if len(parts) < 3:
        run(["rev-parse", "--git-dir"], cwd=cwd)
        raise RepositoryError("git rev-parse does not tell where the repository is")
    start = (cwd or Path.cwd()).resolve()
    top = parts[2].rstrip("\r\n")
    return Repository(Path(top) if top else None, (start / parts[0]).resolve(), (start / parts[1]).resolve())
