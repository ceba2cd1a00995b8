"""The paper's protocol (section 4.1): every setting of a grid on one repeat, then the chosen one on five.

Chosen is the setting of the highest validation accuracy, of equals the first: η and γ from the largest down. The paper
says neither which settings won nor on how many repeats they were compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from gpu.experiments.grid import Outcome, Runner
from gpu.train.loop import Result
from gpu.train.settings import Settings
from gpu.train.study import Failure

GRID = (0.1, 0.01, 0.001, 0.0001)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The grid of η and of γ, how many repeats (seeds 0, 1, …), and at most how many epochs a run."""

    rates: tuple[float, ...] = GRID
    gammas: tuple[float, ...] = GRID
    repeats: int = 5
    epochs: int = 500


QUICK = Protocol(rates=(0.1, 0.01), gammas=(0.1, 0.01), repeats=2, epochs=10)
QUICK_EPOCHS = {"features": 10, "image": 2, "text": 4}  # of QUICK: with as many each takes less than two minutes


@dataclass(frozen=True)
class Arm:
    """One of the things that an experiment compares: settings whose η and γ are still to be chosen."""

    label: str
    settings: Settings

    def run(self, lr: float, gamma: float, seed: int, epochs: int) -> tuple[str, Settings]:
        """A run's folder and settings."""
        bandwidth = f"-gamma{gamma:g}" if self.has_gamma else ""
        settings = replace(self.settings, lr=lr, gamma=gamma, seed=seed, epochs=epochs)
        return f"{self.label}/lr{lr:g}{bandwidth}-seed{seed}", settings

    @property
    def has_gamma(self) -> bool:
        return self.settings.optimizer == "kernel-sgd" and self.settings.kernel in ("rbf", "polynomial")

    def grid(self, protocol: Protocol) -> dict[str, Settings]:
        gammas = protocol.gammas if self.has_gamma else (self.settings.gamma,)
        return dict(self.run(lr, gamma, 0, protocol.epochs) for lr, gamma in product(protocol.rates, gammas))

    def repeated(self, chosen: Settings, protocol: Protocol) -> dict[str, Settings]:
        return dict(self.run(chosen.lr, chosen.gamma, seed, protocol.epochs) for seed in range(protocol.repeats))


@dataclass(frozen=True)
class Finding:
    """What an arm came to: the chosen settings (None where every run of the grid has failed), its finished repeats, the
    folders of them, and what has failed, in the grid or after it."""

    arm: Arm
    chosen: Settings | None
    results: tuple[Result, ...]
    folders: tuple[str, ...]
    failures: tuple[Failure, ...]


def number_of_runs(arms: Sequence[Arm], protocol: Protocol) -> int:
    return sum(len(arm.grid(protocol)) + protocol.repeats - 1 for arm in arms)


def study(arms: Sequence[Arm], protocol: Protocol, run: Runner) -> list[Finding]:
    """Both stages, each over all arms at once, so that no core waits."""
    grids = {arm: arm.grid(protocol) for arm in arms}
    first = run({name: settings for grid in grids.values() for name, settings in grid.items()})
    chosen = {arm: choose(grid, first) for arm, grid in grids.items()}
    repeats = {arm: arm.repeated(settings, protocol) for arm, settings in chosen.items() if settings is not None}
    second = run({name: settings for runs in repeats.values() for name, settings in runs.items()})
    return [_finding(arm, chosen[arm], grids[arm], repeats.get(arm, {}), first | second) for arm in arms]


def choose(grid: dict[str, Settings], outcomes: dict[str, Outcome]) -> Settings | None:
    """The setting of the highest validation accuracy, of equals the first; None where all have failed."""
    finished = {name: r.validation_accuracy for name in grid if isinstance(r := outcomes[name], Result)}
    return grid[max(finished, key=finished.__getitem__)] if finished else None


def _finding(
    arm: Arm,
    chosen: Settings | None,
    grid: dict[str, Settings],
    repeats: dict[str, Settings],
    outcomes: dict[str, Outcome],
) -> Finding:
    results = {name: r for name in repeats if isinstance(r := outcomes[name], Result)}
    failures = [f for name in {**grid, **repeats} if isinstance(f := outcomes[name], Failure)]
    return Finding(arm, chosen, tuple(results.values()), tuple(results), tuple(failures))
