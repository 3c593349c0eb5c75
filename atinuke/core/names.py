"""Names in graph files: what they look like, which are taken, and what a misspelt one may have meant."""

import difflib
import re
from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# The generated class needs these for itself: attributes of nn.Module, and names in the emitted source.
RESERVED = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda delete_submodule double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half index ipu
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters position
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state state_dict step to
    to_empty train training type xpu zero_grad
    NamedTuple Output StepOutput Tensor capacity enumerate last new nn piece prepare prepared self torch
    """.split()  # noqa: SIM905 - a list literal of these would hide them
)


def close(name: str, known: Iterable[str]) -> str | None:
    """What to try instead of an unknown name: the nearest known one, or all of a few."""
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1)
    if found:
        return f"use `{found[0]}`"
    return f"use one of: {', '.join(known)}" if 0 < len(known) <= 12 else None
