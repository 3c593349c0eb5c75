"""Runs deployed models without torch: numpy in, numpy out.

```python
model = atinuke.runtime.load("bundle")
for row, text in model.stream(["Once upon a time"], temperature=0.8, seed=1):
    print(text, end="", flush=True)
```
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atinuke.runtime.model import Model as Model
    from atinuke.runtime.model import load as load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from atinuke.runtime import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
