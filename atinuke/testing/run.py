"""Tries laws on components."""

from collections.abc import Callable, Collection, Iterator

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import HypothesisException, Unsatisfiable

from atinuke.core.component import Component
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.names import close
from atinuke.testing.draw import Case, Contract, cases
from atinuke.testing.law import (
    LAWS,
    Law,
    LawError,
    LawResult,
    NotApplicableError,
    NotRunError,
    Status,
    ViolationError,
    brief,
)
from atinuke.testing.trial import Trial

BACKEND = "aot_eager"
POOL = 50  # cases from which the few for a slow law are chosen; where none can be judged, no more are tried


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
        examples: the number of cases that each law is tried on; when None 20, and 1 to 3 where something is compiled.
        backend: what the laws `compile` and `compile_step` compile with; "aot_eager" traces forward and backward
            without generating code, "inductor" generates it and takes up to a minute a component.

    Raises:
        AtinukeError: the component or a law does not exist, or its contract cannot be read.
    """
    contract = Contract.of(component)
    return [_run(contract, LAWS[name], examples, backend) for name in _chosen(laws)]


def _chosen(laws: Collection[str] | None) -> Collection[str]:
    for name in laws or ():
        if name not in LAWS:
            raise fail(f"no law is called `{name}`", fix=close(name, LAWS) or f"use one of: {', '.join(LAWS)}")
    return LAWS if laws is None else laws


def _run(contract: Contract, law: Law, examples: int | None, backend: str) -> LawResult:
    name = contract.name
    reason = law.inapplicable(contract.signature)
    if reason:
        return LawResult(name, law.name, law.promise, "not applicable", reason)
    attempt = _Attempt(contract, law, examples or law.examples, backend)
    try:
        passed = attempt.few() if law.slow else attempt.many()
    except LawError as error:
        error.__notes__ = []  # Hypothesis's own account of the case, which the message already gives
        return LawResult(name, law.name, law.promise, "failed", f"expected {error.expected}, got {error.got}", error)
    if passed:
        return LawResult(name, law.name, law.promise, "passed")
    return LawResult(name, law.name, law.promise, *attempt.excuses[0])


class _Attempt:
    """One law on one component. `judged` counts the cases that were judged; `excuses` says why others could not be."""

    def __init__(self, contract: Contract, law: Law, examples: int, backend: str) -> None:
        self.contract = contract
        self.law = law
        self.examples = examples
        self.backend = backend
        self.judged = 0
        self.excuses: list[tuple[Status, str]] = []

    def many(self) -> bool:
        """Lets Hypothesis look for the smallest case that breaks the law; False where no case could be judged."""

        def judge(case: Case) -> None:
            hopeless = not self.judged and len(self.excuses) >= POOL
            if not hopeless and not self.judge(case):
                hypothesis.reject()

        self.draw(judge, self.examples)
        return self.judged > 0

    def few(self) -> bool:
        """Judges a few cases that differ from one another; False where no case could be judged."""
        drawn: list[Case] = []
        self.draw(drawn.append, POOL)
        for case in _varied(drawn[::-1]):  # Hypothesis begins with simple cases, which say little
            self.judge(case)
            if self.judged == self.examples:
                break
        return self.judged > 0

    def draw(self, use: Callable[[Case], None], examples: int) -> None:
        """Draws cases, the same on every run: a law that fails now and then helps nobody."""
        law = self.law
        settings = hypothesis.settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )

        @settings
        @hypothesis.given(cases(self.contract, law.low, law.others, law.other_low))
        def each(case: Case) -> None:
            use(case)

        try:
            each()
        except Unsatisfiable:
            if not self.excuses:
                expected = "settings and sizes that go together to be found (a strategy can help to draw them)"
                raise LawError(self.contract.name, law, None, expected, "none") from None

    def judge(self, case: Case) -> bool:
        """Whether the law holds for a case; False where it says nothing about it. LawError where it is broken."""
        name = self.contract.name
        try:
            self.law.hold(Trial(self.contract, case, self.backend))
        except NotApplicableError as error:
            self.excuses.append(("not applicable", str(error)))
            return False
        except NotRunError as error:
            self.excuses.append(("not run", str(error)))
            return False
        except (HypothesisException, AtinukeError):
            raise
        except ViolationError as error:
            raise LawError(name, self.law, case, error.expected, error.got) from error.__cause__
        except Exception as error:
            raise LawError(name, self.law, case, "no exception", brief(error)) from error
        self.judged += 1
        return True


def _varied(drawn: list[Case]) -> Iterator[Case]:
    """The cases in an order in which each shows as much as possible that none before it showed."""
    seen: set[tuple[str, object]] = set()
    while drawn:
        best = max(drawn, key=lambda case: len(_features(case) - seen))
        seen |= _features(best)
        drawn = [case for case in drawn if case is not best]
        yield best


def _features(case: Case) -> set[tuple[str, object]]:
    """The choices in a case: switches, names and absences among the settings, and the numbers of axes and wires."""
    chosen = {name: value if isinstance(value, bool | str) else type(value) for name, value in case.settings.items()}
    axes = {f"*{lead}": len(sizes) for lead, sizes in case.sizes.leads.items()}
    return set({**chosen, **axes, **case.ports}.items())
