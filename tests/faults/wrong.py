"""The wrong backends, one for each fault of five families: `--backend tests.faults.wrong:BACKENDS.members_reversed`."""

from types import SimpleNamespace

from tests.faults import batching, precision, reshaping, robustness, scaling
from tests.faults.table import FAULTS

FAMILIES = tuple(module.__name__.rpartition(".")[2] for module in (reshaping, scaling, precision, robustness, batching))
BACKENDS = SimpleNamespace(**{name: fault.backend() for name, fault in FAULTS.items()})
