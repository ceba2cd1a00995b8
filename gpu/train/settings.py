"""What determines a run, apart from the data: two runs with equal settings on equal data are equal bit for bit."""

import math
from dataclasses import dataclass

import torch

from gpu.optim.baselines import BASELINES
from gpu.train.errors import UsageError

CHOICES = {
    "optimizer": ("kernel-sgd", *BASELINES),
    "network": ("auto", "mlp", "resnet18", "lstm"),
    "kernel": ("rbf", "linear", "polynomial", "random-psd"),
    "decay": ("l2", "decoupled"),
    "bias": ("plain", "augmented"),
    "layers": ("last", "all"),
    "step_rule": ("constant", "monotone"),
}
AT_LEAST = {
    "seed": 0,
    "lr": 0,
    "momentum": 0,
    "weight_decay": 0,
    "ridge": 0,
    "degree": 1,
    "batch_size": 1,
    "epochs": 1,
    "history": 1,
    "width": 1,
    "units": 1,
    "threads": 1,
    "memory_budget": 1,
}
AT_MOST = {
    "lr": 2.0**127,  # what float32, the dtype of the weights, can hold
    "momentum": 2.0**127,
    "weight_decay": 2.0**127,
    "threads": 1024,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run. The defaults are the paper's protocol; η (`lr`) and γ (`gamma`) come from its grid.

    `seed` decides the initial weights, the validation split, the mini-batches and the random vectors of "esgd",
    "esgd-li" and "adahessian"; runs of several optimizers with one seed are paired. `network` "auto" is the paper's for
    the kind of data: "resnet18" for images, "lstm" for texts, "mlp" for features; `hidden` has the widths of the
    perceptron's hidden layers, `width` the channels of ResNet's first stage, `units` the LSTM's. `momentum` is that of
    "sgd-momentum", `history` how many pairs "l-bfgs" keeps (10 as published, 3 in the submission). Kernel ("random-psd"
    is no kernel but a control, see `gpu.train.loop.random_inverses`), `decay`, `bias`, `layers`, `step_rule` and
    `record_claims` (which changes nothing in the training) concern "kernel-sgd". Raises UsageError for values out of
    range.
    """

    optimizer: str = "kernel-sgd"
    seed: int = 0
    network: str = "auto"
    hidden: tuple[int, ...] = (100, 100)
    width: int = 64
    units: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    history: int = 10
    weight_decay: float = 1e-4
    kernel: str = "rbf"
    gamma: float = 0.01
    degree: int = 3
    coef0: float = 1.0
    ridge: float = 0.0
    decay: str = "l2"
    bias: str = "plain"
    layers: str = "last"
    step_rule: str = "constant"
    batch_size: int = 64
    epochs: int = 500
    validation: float = 0.2
    resample: bool = False
    memory_budget: int = 2**30
    device: str = "cpu"
    threads: int = 1
    record_claims: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise UsageError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        if self.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
            raise UsageError(f"optimizer: muon needs torch >= 2.9, this is {torch.__version__}")
        for name, least in AT_LEAST.items():
            if not least <= (value := getattr(self, name)) < math.inf:
                raise UsageError(f"{name}: expected a finite number >= {least}, got {value}")
        for name, most in AT_MOST.items():
            if (value := getattr(self, name)) > most:
                raise UsageError(f"{name}: expected at most {most:g}, got {value}")
        if self.seed >= 2**32:
            raise UsageError(
                f"seed: expected less than 2**32, which is all that torch's generator looks at, got {self.seed}"
            )
        if not 0 < self.gamma < math.inf:
            raise UsageError(f"gamma: expected a finite number > 0, got {self.gamma}")
        if not math.isfinite(self.coef0):
            raise UsageError(f"coef0: expected a finite number, got {self.coef0}")
        if not 0 < self.validation < 1:
            raise UsageError(f"validation: expected a fraction between 0 and 1, got {self.validation}")
        if any(width < 1 for width in self.hidden):
            raise UsageError(f"hidden: expected widths >= 1, got {','.join(map(str, self.hidden))}")
        if self.kernel == "random-psd" and self.resample:
            raise UsageError("kernel: random-psd is drawn once a run, got it together with resample")
        if self.step_rule == "monotone" and self.layers == "all":
            raise UsageError("step_rule: monotone bounds one layer's step, got it together with layers=all")

    @property
    def run_name(self) -> str:
        """The name of this run's folder within its study."""
        return f"{self.optimizer}-seed{self.seed}"
