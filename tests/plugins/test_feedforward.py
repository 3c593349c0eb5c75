import pytest
import torch
from transformers import GPT2Config, LlamaConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from atinuke.plugins.feedforward import GELUFeedForward, ReLUFeedForward, SwiGLUFeedForward


@pytest.mark.parametrize(("approximate", "name"), [("none", "gelu"), ("tanh", "gelu_new")])
def test_gelu_is_gpt2s(approximate, name):
    torch.manual_seed(0)
    ours = GELUFeedForward(16, 40, approximate=approximate)
    theirs = GPT2MLP(40, GPT2Config(n_embd=16, activation_function=name)).eval()
    with torch.no_grad():
        for linear, convolution in ((ours.up, theirs.c_fc), (ours.down, theirs.c_proj)):
            linear.weight.normal_()
            linear.bias.normal_()
            convolution.weight.copy_(linear.weight.t())
            convolution.bias.copy_(linear.bias)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-4)


def test_relu_is_the_formula():
    torch.manual_seed(0)
    ours = ReLUFeedForward(16, 40).double()
    with torch.no_grad():
        ours.up.bias.normal_()
        ours.down.bias.normal_()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    expected = (x @ ours.up.weight.t() + ours.up.bias).clamp(min=0) @ ours.down.weight.t() + ours.down.bias
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_is_llamas(bias):
    torch.manual_seed(0)
    ours = SwiGLUFeedForward(16, 40, bias=bias)
    theirs = LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=40, num_attention_heads=2, mlp_bias=bias))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        for name, ours_of_it in (("weight", ours.gate_up.weight), ("bias", ours.gate_up.bias)):
            if ours_of_it is not None:
                getattr(theirs.gate_proj, name).copy_(ours_of_it[:40])
                getattr(theirs.up_proj, name).copy_(ours_of_it[40:])
        theirs.down_proj.load_state_dict(ours.down.state_dict())
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-4)


def test_starts_as_gpt2():
    torch.manual_seed(0)
    module = GELUFeedForward(64, 256)
    for linear in (module.up, module.down):
        assert abs(linear.weight.std().item() - 0.02) < 3e-4
        assert not linear.bias.any()
