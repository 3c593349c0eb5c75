from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.init import Adopted, adopt


def test_what_agrees_is_kept_and_the_rest_is_named(tmp_path: Path) -> None:
    theirs = {"0.weight": torch.ones(4, 3), "0.bias": torch.ones(5), "2.weight": torch.ones(1)}
    save_file(theirs, tmp_path / "w.safetensors")
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    bias = module[0].bias.clone()
    found = adopt(module, tmp_path / "w.safetensors")
    assert found == Adopted(("0.weight",), ("0.bias", "2.weight"), ("0.bias", "1.weight", "1.bias"))
    assert torch.equal(module[0].weight, theirs["0.weight"])
    assert torch.equal(module[0].bias, bias)
    assert found.lines()[2] == "new 3 tensors: 0.bias, 1.weight, 1.bias"


def test_a_model_that_shares_nothing_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(4, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(AtinukeError, match="shares no tensor with this model"):
        adopt(nn.Linear(2, 2), tmp_path / "w.safetensors")
