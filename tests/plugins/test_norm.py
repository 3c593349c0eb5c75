import numpy as np
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from atinuke.plugins.norm import LayerNorm, RMSNorm


def test_layer_norm_is_the_formula():
    torch.manual_seed(0)
    norm = LayerNorm(12, eps=1e-3).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(3, 4, 12, dtype=torch.float64) * 5 + 2
    a = x.numpy()
    scaled = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-3)
    expected = scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_rms_norm_is_llamas():
    torch.manual_seed(0)
    ours, theirs = RMSNorm(12, eps=1e-2), LlamaRMSNorm(12, eps=1e-2)
    with torch.no_grad():
        ours.weight.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 12) * 0.3
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
