"""The outer step of DiLoCo: the mean of what workers trained is taken for a gradient, with Nesterov momentum.

Douillard et al. 2023, with the outer optimiser as torch.optim.SGD(nesterov=True) has it.
"""

from git_theta.errors import ConflictError
from git_theta.merges.averages import WEIGHTS, blend
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy

__all__ = ["DILOCO", "momentum"]


def momentum(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """The momentum after this step, which the next one needs in its file: mu * m + d, with d = base - mean of sides."""
    gradient = inputs.base - blend(xp, inputs.sides, options.shares(len(inputs.sides)))
    given = inputs.files.get("momentum", ())
    if len(given) > 1:
        raise ConflictError(f"it is in {len(given)} 'momentum' files; name one")
    return given[0] * options.number("momentum") + gradient if given else gradient


def _diloco(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """base - lr * (d + mu * (mu * m + d))."""
    gradient = inputs.base - blend(xp, inputs.sides, options.shares(len(inputs.sides)))
    step = gradient + momentum(xp, inputs, options) * options.number("momentum")
    return inputs.base - step * options.number("lr")


DILOCO = Strategy(
    "diloco-outer",
    "A step of the outer optimiser of DiLoCo from the base, by the mean of the sides' changes and a momentum.",
    "https://arxiv.org/abs/2311.08105",
    _diloco,
    options=(
        WEIGHTS,
        Option("lr", 0.7, "The outer learning rate.", above=0, most=100),
        Option("momentum", 0.9, "How much of the last momentum is kept.", least=0, most=1),
    ),
    needs_base=True,
    elementwise=True,
    files={"momentum": "the momentum that the last merge left; a merge without it begins anew"},
)
