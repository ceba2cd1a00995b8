"""One thread, Hypothesis profiles (HYPOTHESIS_PROFILE: ci, ci-random, dev, nightly), and GPU tests only on a GPU."""

import os
from typing import Any

# Read when NumPy and torch are first imported: their sums must not depend on the number of cores.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import pytest
from hypothesis import HealthCheck, Phase, settings

# All of it spelled out: where CI is set, Hypothesis has other defaults.
_common = settings(
    max_examples=40,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", _common, derandomize=True, database=None)
settings.register_profile("ci-random", _common, database=None)
# Whether a test fails, not why: for the audit and the faults.
for _audit, _ci in (("audit", "ci"), ("audit-random", "ci-random")):
    settings.register_profile(_audit, settings.get_profile(_ci), phases=(Phase.explicit, Phase.generate))
settings.register_profile("dev", _common, max_examples=10)
settings.register_profile("mutation", settings.get_profile("audit"), max_examples=10)
settings.register_profile("nightly", _common, max_examples=100 * _common.max_examples)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


pytest_plugins = ["tests.conformance.plugin"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Halves, of which the faster process takes over some: neighbours, which share fixtures, stay together."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
