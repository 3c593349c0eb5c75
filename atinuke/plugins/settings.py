"""Checks that constructors share."""


def require_positive(**settings: float) -> None:
    """Raises ValueError for the first setting that is not above zero."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, but is {value}")
