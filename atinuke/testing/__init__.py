"""The laws that every registered component keeps, for plugin authors: "if it registers, it deploys".

Hypothesis draws settings and sizes from a component's contract and looks for a case that breaks a law. `LAWS` has all
laws by name, each with its promise. In Python:

    from atinuke.testing import check_component
    check_component("strided:text.embedding")

or, for a whole plugin and one test for every component and law, with pytest: `pytest --atinuke-plugin strided`.
"""

import importlib.util

from atinuke.core.errors import fail

for _package in ("hypothesis", "torch"):
    if importlib.util.find_spec(_package) is None:
        raise fail(f"the laws need {_package}", "it is not installed", fix="pip install 'atinuke[testing,torch]'")

from atinuke.testing import deploy, eager, steps  # noqa: E402, F401 - the modules register their laws, in this order
from atinuke.testing.law import LAWS, Law, LawError, LawResult  # noqa: E402
from atinuke.testing.run import check_component, run_laws  # noqa: E402

__all__ = ["LAWS", "Law", "LawError", "LawResult", "check_component", "run_laws"]
