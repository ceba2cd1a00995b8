"""Every optimizer on the paper's three networks: the time of a training step over that of SGD, and bytes of state.

What is measured is the trainer's own loop over mini-batches, so a step is forward pass, backward pass and update.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gpu.bench.optional import OPTIONAL, hessian_bytes, state_bytes, versions
from gpu.bench.step import BASELINE, Training, training
from gpu.bench.timing import against, clock, interleaved
from gpu.train.data import Dataset, load
from gpu.train.errors import UsageError
from gpu.train.models import build_model
from gpu.train.provenance import provenance
from gpu.train.settings import Settings

# η of each: of 1, 0.3, 0.1, … 0.001 the one that needed the fewest epochs to a training loss of 0.1 on digits, of
# equals the smaller. A step takes as long with any, but with the same one for all some would not stay finite.
LEARNING_RATES = {
    "kernel-sgd": 0.1,
    "sgd": 0.3,
    "sgd-momentum": 0.1,
    "adamw": 0.01,
    "l-bfgs": 1.0,
    "esgd": 0.1,
    "esgd-li": 0.3,
    "adahessian": 0.1,
    "soap": 0.03,
    "muon": 0.03,
    "shampoo": 0.3,
    "ikfac": 0.1,
}
SECOND_ORDER = ("l-bfgs", "esgd", "esgd-li", "adahessian", "soap")
NOT_MEASURED = {
    "k-fac": "no package has one that works as it comes: asdfghjkl's default damping leaves matrices without a "
    "Cholesky factor, approxngd has no default for it, and no licence; nngeometry and curvlinops have the matrix, no "
    "optimizer; ikfac, of singd, is its relative without inverses"
}

# --check: on the multilayer perceptron, the time of kernel-sgd's step over that of sgd's, and of every second-order
# optimizer's over that of kernel-sgd's.
AT_MOST, AT_LEAST = 1.03, 2.5
CHECKED = "mlp"


@dataclass(frozen=True)
class Network:
    """The paper's for these data; `gamma` suits them; `steps` a round, unless somebody wants others.

    ESGD multiplies with the Hessian in every 20th step, SOAP renews its bases in every 10th. In rounds of fewer steps
    the median leaves that out; `ratio_of_totals` does not.
    """

    data: Callable[[], Dataset]
    gamma: float
    steps: int


def usps_sized() -> Dataset:
    """Uniform features and labels as many as usps has, 7,291 instances of 256 features and 10 classes."""
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(7291, 256, generator=generator)
    y = torch.randint(10, (7291,), generator=generator)
    return Dataset("generated", X, y, X[:0], y[:0], tuple(range(10)), "usps: uniform features, random labels")


NETWORKS = {
    "mlp": Network(usps_sized, 0.01, 20),
    "resnet18": Network(lambda: load("digits-32"), 0.01, 1),
    "lstm": Network(lambda: load("words"), 1.0, 5),
}


def optimizers(
    networks: Sequence[str],
    names: Sequence[str],
    *,
    repeats: int,
    steps: int | None = None,
    width: int = 64,
    batch_size: int = 64,
    threads: int = 1,
) -> dict[str, Any]:
    """The figures of every network, see `compared`, and what they were measured with; SGD always takes part.

    `steps` a round (None: as many as each network's), `width` of ResNet-18. Raises UsageError for unknown names.
    """
    if unknown := set(networks) - set(NETWORKS):
        raise UsageError(f"network: expected some of {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(threads)
    names, missing = available((BASELINE, *names))
    settings = Settings(batch_size=batch_size, threads=threads)
    return {
        "networks": {
            name: compared(name, names, settings, repeats=repeats, steps=steps, width=width) for name in networks
        },
        "not_measured": NOT_MEASURED | missing,
        "learning_rates": {name: LEARNING_RATES[name] for name in names},
        "repeats": repeats,
        "batch_size": batch_size,
        **machine(threads),
    }


def compared(
    network: str, names: Sequence[str], settings: Settings, *, repeats: int, steps: int | None, width: int
) -> dict[str, Any]:
    """Seconds a step of every optimizer, interleaved, its ratio to SGD's as median over rounds, and bytes.

    `hessian_bytes`: of the Hessian information, kernel-sgd's being the inverses of all mini-batches; `state_bytes`:
    together with the rest of the optimizer's state. Both are those of the tensors that are there after the last round.
    `not_measured`: who would leave layers of this network as they are.
    Raises UsageError where an optimizer has led to parameters that are not finite.
    """
    kind = NETWORKS[network]
    data, steps = kind.data(), steps or kind.steps
    trainings, missing = {}, {}
    for name in names:
        own = replace(settings, gamma=kind.gamma, lr=LEARNING_RATES[name], width=width)
        model = build_model(data, own)
        if name in OPTIONAL and (reason := OPTIONAL[name].untrained(model)):
            missing[name] = reason
        else:
            trainings[name] = training(model, data, own, name)
    tasks = {name: rounds(one, steps) for name, one in trainings.items()}
    seconds = interleaved(tasks, repeats, clock=clock(settings.threads))
    for name, one in trainings.items():
        if not all(p.isfinite().all() for p in one.model.parameters()):
            raise UsageError(f"optimizer: {name} has led to parameters of {network} that are not finite; fewer rounds?")
    caches = {name: 0 if one.cache is None else one.cache.nbytes for name, one in trainings.items()}
    return {
        "data": data.name,
        "stand_in": data.stand_in,
        "instances": sum(len(y) for _, y, _ in trainings[BASELINE].batches),
        "parameters": sum(p.numel() for p in trainings[BASELINE].model.parameters() if p.requires_grad),
        **({"width": width} if network == "resnet18" else {}),
        "steps": steps,
        **against(BASELINE, seconds),
        "ratio_of_totals": {name: sum(seconds[name]) / sum(seconds[BASELINE]) for name in seconds if name != BASELINE},
        "seconds_per_step": {name: median(times) / steps for name, times in seconds.items()},
        "hessian_bytes": {name: caches[name] + hessian_bytes(name, one.optimizer) for name, one in trainings.items()},
        "state_bytes": {name: caches[name] + state_bytes(name, one.optimizer) for name, one in trainings.items()},
        "not_measured": missing,
    }


def missed(networks: dict[str, Any]) -> list[str]:
    """Which of the limits do not hold, a line each; what was not measured does not, unless it is optional."""
    ratios = networks.get(CHECKED, {}).get("ratio_to_sgd", {})
    unmeasured = [name for name in ("kernel-sgd", *SECOND_ORDER) if name not in ratios]
    if unmeasured:
        return [f"{CHECKED}: not measured: {', '.join(unmeasured)}"]
    ours = ratios["kernel-sgd"]
    others = {name: ratios[name] / ours for name in (*SECOND_ORDER, *OPTIONAL) if name in ratios}
    lines = [
        f"{CHECKED}: a step of {name} takes {ratio:.2f} times one of kernel-sgd, expected at least {AT_LEAST}"
        for name, ratio in others.items()
        if ratio < AT_LEAST
    ]
    if ours > AT_MOST:
        lines.append(f"{CHECKED}: a step of kernel-sgd takes {ours:.3f} times one of sgd, expected at most {AT_MOST}")
    return lines


def machine(threads: int) -> dict[str, Any]:
    """Device, threads, clock, how many processes wanted a core in the last minutes, versions, machine and commit."""
    now = {"threads": threads, "clock": clock(threads).__name__, "load_average": os.getloadavg()}
    origin = provenance()
    origin["versions"] |= versions()
    return {"device": "cpu", **now, **origin}


def available(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The names, each once, without those that torch is too old for or whose package is not installed, and why those
    are missing; UsageError for others than these, and where none is left."""
    if unknown := set(names) - set(LEARNING_RATES):
        raise UsageError(f"optimizer: expected some of {', '.join(LEARNING_RATES)}, got {', '.join(sorted(unknown))}")
    missing = {} if hasattr(torch.optim, "Muon") else {"muon": f"needs torch >= 2.9, this is {torch.__version__}"}
    missing |= {name: reason for name in names if name in OPTIONAL and (reason := OPTIONAL[name].missing())}
    measured = [name for name in dict.fromkeys(names) if name not in missing]
    if not measured:
        raise UsageError(f"optimizer: none of these can be measured here: {'; '.join(map(': '.join, missing.items()))}")
    return measured, missing


def rounds(one: Training, steps: int) -> Callable[[], Tensor]:
    """A task of that many steps, going on in the mini-batches where the round before has stopped."""
    batches = cycle(one.batches)
    return lambda: one.over(islice(batches, steps))
