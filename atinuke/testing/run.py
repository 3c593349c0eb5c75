"""Tries laws on components."""

from collections.abc import Collection

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import HypothesisException, Unsatisfiable

from atinuke.core.component import Component
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.testing.draw import Case, Contract, cases
from atinuke.testing.law import LAWS, Law, LawError, LawResult, NotApplicableError, NotRunError, ViolationError
from atinuke.testing.trial import Trial

BACKEND = "aot_eager"


def check_component(
    component: str | Component,
    *,
    laws: Collection[str] | None = None,
    examples: int | None = None,
    backend: str = BACKEND,
) -> None:
    """Raises `LawError` for the first law that a component breaks; the arguments are those of `run_laws`."""
    for name in _chosen(laws):
        for result in run_laws(component, laws=[name], examples=examples, backend=backend):
            if result.error is not None:
                raise result.error


def run_laws(
    component: str | Component,
    *,
    laws: Collection[str] | None = None,
    examples: int | None = None,
    backend: str = BACKEND,
) -> list[LawResult]:
    """How a component, given by name or as a record, fares under each law.

    Args:
        laws: the names of the laws to try; all of them when None. `LAWS` has them with their promises.
        examples: the number of cases drawn for each law; when None 20, and 1 where something is compiled.
        backend: what law `compile` compiles with; "aot_eager" traces forward and backward without generating code,
            "inductor" generates it and takes a minute or more a component.

    Raises:
        AtinukeError: the component or a law does not exist, or its contract cannot be read.
    """
    record = Registry().component(component) if isinstance(component, str) else component
    contract = Contract.of(record)
    return [_run(contract, LAWS[name], examples, backend) for name in _chosen(laws)]


def _chosen(laws: Collection[str] | None) -> Collection[str]:
    for name in laws or ():
        if name not in LAWS:
            raise fail(f"no law is called `{name}`", fix=close(name, LAWS))
    return LAWS if laws is None else laws


def _run(contract: Contract, law: Law, examples: int | None, backend: str) -> LawResult:
    name = contract.component.name
    reason = law.inapplicable(contract.signature)
    if reason:
        return LawResult(name, law.name, law.promise, "not applicable", reason)
    inapplicable: list[str] = []
    not_run: list[str] = []
    passed_over = law.shrink

    # The same cases on every run: a law that fails now and then helps nobody.
    @hypothesis.settings(
        max_examples=examples or law.examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if law.shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(cases(contract, law.low, law.others, law.other_low))
    def hold(case: Case) -> None:
        nonlocal passed_over
        if not passed_over:
            passed_over = True
            hypothesis.reject()
        try:
            law.hold(Trial(contract, case, backend))
        except NotApplicableError as error:
            inapplicable.append(str(error))
            hypothesis.reject()
        except NotRunError as error:
            not_run.append(str(error))
            hypothesis.reject()
        except (HypothesisException, AtinukeError):
            raise
        except ViolationError as error:
            raise LawError(name, law, case, error.expected, error.got) from None
        except Exception as error:
            raise LawError(name, law, case, "no exception", f"{type(error).__name__}: {error}") from error

    try:
        hold()
    except LawError as error:
        error.__notes__ = []  # Hypothesis's own account of the case, which the message already gives
        return LawResult(name, law.name, law.promise, "failed", f"expected {error.expected}, got {error.got}", error)
    except Unsatisfiable:
        if not_run:
            return LawResult(name, law.name, law.promise, "not run", not_run[0])
        if inapplicable:
            return LawResult(name, law.name, law.promise, "not applicable", inapplicable[0])
        expected = "settings and sizes to be found that go together (give the component a strategy that draws them)"
        none = LawError(name, law, None, expected, "none")
        return LawResult(name, law.name, law.promise, "failed", f"expected {expected}, got none", none)
    return LawResult(name, law.name, law.promise, "passed")
