"""Every built-in strategy passes the kit, and what it promises there is what its documentation says."""

from collections.abc import Mapping, Sequence

import numpy as np

from git_theta.merges.averages import AVERAGE, FISHER, REGMEAN
from git_theta.merges.copies import BASE, MAX, OURS, THEIRS
from git_theta.merges.diloco import DILOCO
from git_theta.merges.dropping import BREADCRUMBS, DARE_LINEAR, DARE_TIES, DELLA
from git_theta.merges.elements import NEARSWAP, THREE_WAY
from git_theta.merges.signs import SCE, TIES
from git_theta.merges.spherical import NUSLERP, SLERP
from git_theta.merges.task_vectors import MODEL_STOCK, TASK_ARITHMETIC
from git_theta.testing import MergeTests, Tensor


def _numbers(shape: tuple[int, ...], seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(seed).random(shape).astype("<f4")


class TestOurs(MergeTests):
    merge = OURS


class TestTheirs(MergeTests):
    merge = THEIRS


class TestBase(MergeTests):
    merge = BASE
    symmetric = True


class TestMax(MergeTests):
    merge = MAX
    symmetric = True


class TestAverage(MergeTests):
    merge = AVERAGE
    symmetric = True


class TestWeightedAverage(MergeTests):
    merge = AVERAGE
    options: Mapping[str, object] = {"weights": "3,1"}


class TestTaskArithmetic(MergeTests):
    merge = TASK_ARITHMETIC
    one_sided = True
    symmetric = True


class TestTies(MergeTests):
    merge = TIES
    symmetric = True


class TestDareLinear(MergeTests):
    merge = DARE_LINEAR
    symmetric = True


class TestDareTies(MergeTests):
    merge = DARE_TIES
    symmetric = True


class TestDella(MergeTests):
    merge = DELLA
    symmetric = True


class TestBreadcrumbs(MergeTests):
    merge = BREADCRUMBS
    symmetric = True


class TestModelStock(MergeTests):
    merge = MODEL_STOCK
    symmetric = True


class TestSce(MergeTests):
    merge = SCE
    symmetric = True


class TestSceOfAFew(MergeTests):
    merge = SCE
    options: Mapping[str, object] = {"select": 0.3}
    symmetric = True


class TestSlerp(MergeTests):
    merge = SLERP
    symmetric = True


class TestNuslerp(MergeTests):
    merge = NUSLERP
    symmetric = True


class TestThreeWay(MergeTests):
    merge = THREE_WAY
    one_sided = True
    symmetric = True


class TestThreeWayWithTaskArithmetic(MergeTests):
    merge = THREE_WAY
    options: Mapping[str, object] = {"inner": "task-arithmetic"}
    one_sided = True
    symmetric = True


class TestNearswap(MergeTests):
    merge = NEARSWAP
    options: Mapping[str, object] = {"t": 0.01}


class TestFisher(MergeTests):
    merge = FISHER
    symmetric = True

    def files(self, shape: tuple[int, ...]) -> Mapping[str, Sequence[Tensor]]:
        return {"fisher": [Tensor("F32", shape, _numbers(shape, seed).tobytes()) for seed in (1, 2)]}


class TestRegmean(MergeTests):
    merge = REGMEAN
    symmetric = True

    def files(self, shape: tuple[int, ...]) -> Mapping[str, Sequence[Tensor]]:
        if len(shape) != 2:
            return {}
        inputs = [_numbers((4 * shape[1], shape[1]), seed) for seed in (1, 2)]
        return {"gram": [Tensor("F32", (shape[1],) * 2, (x.T @ x).tobytes()) for x in inputs]}


class TestDiloco(MergeTests):
    merge = DILOCO
    symmetric = True

    def files(self, shape: tuple[int, ...]) -> Mapping[str, Sequence[Tensor]]:
        return {"momentum": [Tensor("F32", shape, _numbers(shape, 3).tobytes())]}
