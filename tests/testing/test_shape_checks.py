"""The checks that tests run with: every new combination of shapes is checked, in and out, and nothing twice."""

from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor

import shape_checks

checked = jaxtyping.jaxtyped(typechecker=beartype)


@checked
@dataclass(frozen=True)
class Pair:
    left: Float[Tensor, "B"]
    right: Float[Tensor, "B"]

    @checked
    def cut(self, size: int) -> Float[Tensor, "2 N"]:
        return torch.stack([self.left, self.right])[:, :size].squeeze()


def test_the_package_is_checked_and_wrong_shapes_fail_by_name():
    from anyorder.core.categorical import draw

    assert draw.checks_shapes
    for checks in shape_checks.CHECKS.values():  # other tests of this process may have calmed them
        checks.calm = 0
    with pytest.raises(jaxtyping.TypeCheckError, match=r"parameters of anyorder\.core\.categorical\.draw\b"):
        draw(torch.zeros(2, 3), torch.zeros(3))


def test_a_signature_that_passed_does_not_hide_another():
    assert Pair(torch.zeros(3), torch.zeros(3)).cut(2).shape == (2, 2)
    for wrong in (torch.zeros(4), torch.zeros(3).long(), torch.zeros(3, 1), 3.0):
        with pytest.raises(jaxtyping.TypeCheckError, match="right"):
            Pair(torch.zeros(3), wrong)
    assert Pair(torch.zeros(3), torch.zeros(3)).cut(3).shape == (2, 3)


def test_a_result_is_checked_after_arguments_that_passed():
    pair = Pair(torch.zeros(3), torch.zeros(3))
    assert pair.cut(2).shape == (2, 2)
    for _ in range(2):  # what failed is not remembered as right
        with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
            pair.cut(1)
    with pytest.raises(jaxtyping.TypeCheckError, match="size"):
        pair.cut(2.0)


def test_nested_functions_are_checked_once_for_all_that_one_definition_makes():
    bodies = []

    def make(answer):
        @checked
        def nested(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
            bodies.append(answer)
            return torch.zeros(answer)

        return nested

    assert make(3)(torch.zeros(3)).shape == make(3)(torch.zeros(3)).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        make(2)(torch.zeros(3))
    with pytest.raises(RuntimeError, match="negative"):  # an error of the function itself passes through
        make(-1)(torch.zeros(2))
    assert bodies == [3, 3, 2, -1]  # each called once


def test_calls_inside_calls_are_each_checked():
    @checked
    def down(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        return down(x[1:]).repeat(2)[: len(x)] if len(x) > 1 else x

    assert down(torch.zeros(4)).shape == (4,)
    with pytest.raises(jaxtyping.TypeCheckError, match="x"):
        down(torch.zeros(4).long())
    assert down(torch.zeros(5)).shape == (5,)
