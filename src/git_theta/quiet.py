"""Quiet: Ctrl-C while one of our programs is still being imported ends it as it ends any other, without a traceback.

To be imported before everything that takes a while; `over` then has Python raise KeyboardInterrupt again. So this
imports nothing that is not in the interpreter: `_signal` is what `signal` wraps.
"""

import _signal as signal  # type: ignore[import-not-found]  # typeshed has what wraps it alone
import sys

__all__ = ["over"]

_PROGRAMS = ("git-theta", "git-theta-filter")


def _begin() -> bool:
    """Whether the system's way is taken: in our programs, unless whoever started them has Ctrl-C ignored."""
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".exe") if sys.argv else ""
    is_ours = name in _PROGRAMS
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


_begun = _begin()


def over() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, if it would have from the start."""
    if _begun:
        signal.signal(signal.SIGINT, signal.default_int_handler)
