"""Compiled blocks and steps: the same numbers, few graphs, and no class compiled twice."""

import pytest
import torch
from torch._dynamo.utils import counters

from atinuke.compile.inductor import compile_blocks, compile_step
from atinuke.compile.memory import lay_out
from atinuke.compile.module import build
from tests.compile.test_module import SHIPPED, small


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_blocks_are_compiled_once_for_all_layers_and_sizes() -> None:
    torch.manual_seed(0)
    model = build(small("atinuke", "layers=4"))
    model.eval()
    reference = build(small("atinuke", "layers=4")).eval()
    reference.load_state_dict(model.state_dict())
    compile_blocks(model)
    sizes = [(2, 8), (3, 12), *((2 + n % 5, 5 + n) for n in range(20))]
    after_two = 0
    for i, (batch, sequence) in enumerate(sizes):
        ids = torch.randint(0, 50, (batch, sequence))
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=1e-4, atol=1e-5)
        if i == 1:
            after_two = graphs()
    assert graphs() == after_two


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers"), [("atinuke", 2), ("llama", 1)])
@torch.no_grad()
def test_a_compiled_step_gives_the_tokens_of_forward_at_every_capacity(name: str, layers: int) -> None:
    torch.manual_seed(0)
    model = build(small(name, *SHIPPED[name], f"layers={layers}")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    step = compile_step(model)
    ids = torch.randint(0, 50, (1, 12))
    expected = model(ids).logits
    before = graphs()
    for capacity in (12, 16, 24):
        output, state = step(ids[:, :4], torch.zeros(1, dtype=torch.int64), model.state(1, capacity))
        torch.testing.assert_close(output.logits, expected[:, :4], rtol=1e-4, atol=1e-5)
        for at in range(4, 12):
            output, state = step(ids[:, at : at + 1], torch.tensor([at]), state)
            torch.testing.assert_close(output.logits[:, 0], expected[:, at], rtol=1e-4, atol=1e-5)
    assert graphs() - before == 1


@torch.no_grad()
def test_laying_out_changes_no_value_and_no_name() -> None:
    model = build(small("gpt2")).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.randint(0, 50, (2, 5))
    expected = model(ids).logits
    lay_out(model)
    assert model.O.weight is model.E.weight
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(model(ids).logits, expected)


@pytest.mark.slow
@torch.no_grad()
def test_two_models_of_one_class_do_not_share_a_compiled_step() -> None:
    models = [build(small("atinuke", "layers=1")).eval() for _ in range(2)]
    assert type(models[0]) is type(models[1])
    models[1].E.weight.mul_(3)
    ids, start = torch.tensor([[7]]), torch.zeros(1, dtype=torch.int64)
    for model in models:
        output, _ = compile_step(model)(ids, start, model.state(1, 4))
        torch.testing.assert_close(output.logits, model(ids).logits, rtol=1e-4, atol=1e-5)
