"""Averages of the sides: plain, weighted by Fisher information, or by what the layers' inputs were.

Model soups: Wortsman et al. 2022. Fisher merging: Matena and Raffel 2021. RegMean: Jin et al. 2022.
"""

from collections.abc import Sequence

from git_theta.errors import ConflictError
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy

__all__ = ["AVERAGE", "FISHER", "REGMEAN", "WEIGHTS", "blend"]

WEIGHTS = Option(
    "weights", (), "One for each side, ours first; only their ratios count.", least=0, most=1_000_000, ratios=True
)


def blend(xp: Namespace, sides: Sequence[Array], shares: Sequence[float]) -> Array:
    """The sum of the sides by their shares; an element that is the same on all of them stays as it is."""
    made = sides[0] * shares[0]
    same = sides[0] != 0  # zeros of both signs are equal, and their sum does not depend on the order
    for side, share in zip(sides[1:], shares[1:], strict=True):
        made = made + side * share
        same = same & (side == sides[0])
    return xp.where(same, sides[0], made)


def _average(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return blend(xp, inputs.sides, options.shares(len(inputs.sides)))


def _fisher(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """sum w_i F_i X_i / sum w_i F_i; the plain average where no side has any information."""
    shares = options.shares(len(inputs.sides))
    weighted = total = xp.zeros_like(inputs.ours)
    for side, share, fisher in zip(inputs.sides, shares, _file(inputs, "fisher"), strict=True):
        if bool(xp.any(fisher < 0)):
            raise ConflictError("its Fisher information has negative values; make the files again, or take a side")
        weighted = weighted + fisher * share * side
        total = total + fisher * share
    informed = total > 0
    return xp.where(informed, weighted / xp.where(informed, total, 1.0), blend(xp, inputs.sides, shares))


def _regmean(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """(sum G_i)^-1 sum G_i W_i for a weight of shape (out, in), G_i of shape (in, in), in float64.

    What is not on a Gram matrix's diagonal is multiplied by `scale`. Values that have no Gram matrices are averaged.
    """
    grams = inputs.files.get("gram", ())
    if not grams:
        return blend(xp, inputs.sides, (1 / len(inputs.sides),) * len(inputs.sides))
    wanted = (inputs.ours.shape[-1],) * 2
    if len(inputs.ours.shape) != 2 or any(tuple(gram.shape) != wanted for gram in grams):
        raise ConflictError(f"its Gram matrices are not of shape {list(wanted)}; make the files again, or take a side")
    scale = options.number("scale")
    left: Array = 0
    right: Array = 0
    for side, gram in zip(inputs.sides, _file(inputs, "gram"), strict=True):
        wide = xp.astype(gram, xp.float64)
        # The transpose of G W is W^T G for a symmetric G: nothing needs to be transposed.
        wide = wide * scale + _diagonal(xp, wide) * (1 - scale)
        left = left + wide
        right = right + xp.astype(side, xp.float64) @ wide
    return xp.astype(xp.solve(left, right.T).T, inputs.ours.dtype)


def _file(inputs: Inputs, name: str) -> tuple[Array, ...]:
    found = inputs.files.get(name, ())
    if len(found) != len(inputs.sides):
        raise ConflictError(f"it is in {len(found)} of the {len(inputs.sides)} '{name}' files; name one for each side")
    return found


def _diagonal(xp: Namespace, matrix: Array) -> Array:
    """The matrix with zeros outside of its diagonal."""
    rows = xp.argsort(xp.zeros_like(matrix[0]))  # 0, 1, 2, ...: equal elements keep their order
    return xp.where(xp.reshape(rows, (-1, 1)) == xp.reshape(rows, (1, -1)), matrix, 0.0)


AVERAGE = Strategy(
    "average",
    "The weighted mean of the sides (a model soup).",
    "https://arxiv.org/abs/2203.05482",
    _average,
    options=(WEIGHTS,),
    elementwise=True,
)
FISHER = Strategy(
    "fisher",
    "The mean of the sides, each element weighted by its diagonal Fisher information.",
    "https://arxiv.org/abs/2111.09832",
    _fisher,
    options=(WEIGHTS,),
    elementwise=True,
    files={"fisher": "for each side, the mean of the squared gradients, under the parameters' names"},
    sided=frozenset({"fisher"}),
)
REGMEAN = Strategy(
    "regmean",
    "The weights of linear layers that come closest to each side's outputs on its own inputs; a mean for others.",
    "https://arxiv.org/abs/2212.09849",
    _regmean,
    options=(
        Option("scale", 0.9, "What Gram matrices are multiplied by outside of their diagonals.", least=0, most=1),
    ),
    files={"gram": "for each side, X^T X of the inputs X of a layer, under the name of its weight"},
    sided=frozenset({"gram"}),
)
