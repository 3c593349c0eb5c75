"""What every test shares: one thread a process, no deadlines, little garbage, and where the reference data lies."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two workers with two threads each would wait for another
os.environ["HF_HUB_OFFLINE"] = "1"  # some libraries would wait for a hub that nothing here needs

import gc
import signal
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("atinuke", deadline=None)
hypothesis.settings.load_profile("atinuke")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; some tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What has been imported stays, and compilers make and drop many small objects: the collector, which would take a
    tenth of the time, looks seldom and at new ones alone."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: reference data too large to be part of it."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference data in ../shared, which is not part of the repository")
    return SHARED
