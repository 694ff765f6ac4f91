"""Names of values that only mean something together: codes, and the scales and tables that they are read with.

Scope: what bitsandbytes (`weight.absmax`, `SCB`), GPTQ and AWQ (`qweight`, `qzeros`, `scales`, `g_idx`),
compressed-tensors (`weight_packed`, `weight_scale`) and fp8 checkpoints (`weight_scale_inv`) write. A half of one side
and a half of the other is a value that nobody trained.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["groups"]

_BESIDE = re.compile(
    r"(?:(?P<stem>.*)\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))"
    r"|(?P<parent>(?:.*[./])?)(?:qweight|qzeros|scales|g_idx|SCB"
    r"|weight_(?:packed|scale|scale_2|scale_inv|zero_point|shape|g_idx)))\Z",
    re.DOTALL,
)


def groups(names: Iterable[str]) -> list[frozenset[str]]:
    """The names that belong together, two or more each."""
    everyone = set(names)
    found: dict[str, set[str]] = defaultdict(set)
    for name in everyone:
        beside = _BESIDE.match(name)
        if beside:
            stem = beside["stem"] if beside["stem"] is not None else beside["parent"] + "weight"
            found[stem] |= {name, stem} & everyone
    return [frozenset(group) for group in found.values() if len(group) > 1]
