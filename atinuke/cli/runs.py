"""x"""


def train() -> None:
    """Train."""


def resume() -> None:
    """Resume."""


def generate() -> None:
    """Generate."""


def bench() -> None:
    """Bench."""


def demo() -> None:
    """Demo."""
