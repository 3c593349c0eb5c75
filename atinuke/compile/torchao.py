"""Linear layers in 8 bits, by torchao: weights with a scale a row, and inputs that are quantised when they come, with a
scale for each of their rows."""

import copy
from dataclasses import replace

from atinuke.compile.export import quiet
from atinuke.compile.programs import Program


def quantised(program: Program) -> Program:
    """The program with each of its linear layers in 8 bits. Embeddings and convolutions stay as they are, also an
    embedding that a head shares its weight with."""
    with quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        module = copy.deepcopy(program.module)
        quantize_(module, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    return replace(program, module=module)
