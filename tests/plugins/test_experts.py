import math

import numpy as np
import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from atinuke.plugins.experts import MixtureOfExperts


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def token_by_token(module: MixtureOfExperts, x: np.ndarray) -> tuple[np.ndarray, float]:
    """The mixture as the papers say it: each token goes to its experts, one after the other."""
    router, up, down = (layer.weight.detach().numpy() for layer in (module.router, module.up, module.down))
    output = np.zeros_like(x)
    share, mean = np.zeros(module.experts), np.zeros(module.experts)
    for token, vector in enumerate(x):
        scores = np.exp(router @ vector)
        probability = scores / scores.sum()
        mean += probability / len(x)
        for expert in np.argsort(-probability)[: module.top_k]:
            part = slice(expert * module.d_ff, (expert + 1) * module.d_ff)
            output[token] += probability[expert] * (down[:, part] @ gelu(up[part] @ vector))
            share[expert] += 1 / (len(x) * module.top_k)
    return output, module.experts * float(share @ mean)


def build(experts: int, top_k: int) -> MixtureOfExperts:
    torch.manual_seed(experts * 10 + top_k)
    module = MixtureOfExperts(8, 12, experts, top_k).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (4, 1), (4, 2), (5, 5)])
def test_equals_the_loop_over_tokens(experts, top_k):
    module = build(experts, top_k)
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    output, balance = token_by_token(module, x.reshape(-1, 8).numpy())
    found = module(x)
    np.testing.assert_allclose(found.output.detach().numpy().reshape(-1, 8), output, rtol=1e-10, atol=1e-10)
    assert found.balance_loss.item() == pytest.approx(balance, rel=1e-10)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_balance_loss_is_transformers_for_one_choice(top_k):
    module = build(4, top_k)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    theirs = load_balancing_loss_func((module.router(x).reshape(-1, 4),), num_experts=4, top_k=top_k)
    assert module(x).balance_loss.item() == pytest.approx(theirs.item() / top_k, rel=1e-5)


def test_balance_loss_is_one_when_even_and_more_when_not():
    module = build(4, 1)
    with torch.no_grad():
        module.router.weight.zero_()
    assert module(torch.randn(2, 6, 8, dtype=torch.float64)).balance_loss.item() == pytest.approx(1)
    with torch.no_grad():
        module.router.weight[2] = 100
    assert module(torch.ones(2, 6, 8, dtype=torch.float64)).balance_loss.item() == pytest.approx(4)


def test_rows_do_not_influence_each_other():
    module = build(4, 2)
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(module(x).output[1:2], module(x[1:2]).output, rtol=1e-12, atol=1e-12)


def test_takes_a_single_vector():
    module = build(4, 2)
    x = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(module(x).output, module(x[None, None]).output[0, 0], rtol=1e-12, atol=1e-12)
    assert module(x).balance_loss == module(x[None, None]).balance_loss


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_router_learns_from_the_output_alone(top_k):
    module = build(4, top_k)
    module(torch.randn(2, 6, 8, dtype=torch.float64)).output.square().sum().backward()
    assert module.router.weight.grad.abs().max() > 1e-3


def test_exports_with_free_sizes():
    module = build(4, 2)
    free = {0: torch.export.Dim("batch", min=1, max=8), 1: torch.export.Dim("sequence", min=1, max=64)}
    program = torch.export.export(module, (torch.randn(2, 6, 8, dtype=torch.float64),), dynamic_shapes=(free,))
    for batch, sequence in ((1, 1), (5, 33)):
        x = torch.randn(batch, sequence, 8, dtype=torch.float64)
        for got, expected in zip(program.module()(x), module(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
