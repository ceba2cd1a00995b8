"""One training run: Algorithm 1 over mini-batches, with its baselines, the paper's stopping rule and checkpoints.

`train_epoch` is the only place where a network is trained; the bench times this very function.
"""

import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, pairwise, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_groups, mini_batches, resampled
from gpu.optim.baselines import BASELINES, TAKES_LOSS, Options, hessian_bytes
from gpu.optim.digests import content_digest
from gpu.train import checkpoint
from gpu.train.claims import CLAIMS, ClaimsRecord
from gpu.train.data import Dataset
from gpu.train.errors import CheckpointError, UsageError
from gpu.train.models import build_model, described, network_of
from gpu.train.settings import Settings

Batch = tuple[Tensor, Tensor, CachedInverse | None]
Row = dict[str, float]

COLUMNS = ("epoch", "loss", "validation_accuracy", "test_accuracy", "seconds", "cache_seconds")
WALL_CLOCK = ("seconds", "cache_seconds")
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.csv"
EVALUATED = 512  # instances at once: a layer of ResNet-18 has half a megabyte of each
# What a checkpoint from before there were these settings has not recorded.
NEWER = {"record_claims": False, "history": 10, "network": "mlp", "width": 64, "units": 100}
CACHE_OPTIONS = ("kernel", "gamma", "degree", "coef0", "ridge", "memory_budget")


@dataclass(frozen=True)
class Result:
    """A finished run.

    Accuracies are fractions; `test_accuracy` and `train_accuracy` are those of the best validation epoch, of equals
    the last (a small validation set is soon told apart no further, while training still gets on). `seconds` is the
    time spent on training and on fetching mini-batches, `cache_seconds` the part of it that went into inverse
    kernel matrices (built again after every resumption); neither includes evaluation and checkpoints, but `seconds`
    what `record_claims` takes. `inverse_bytes` is the size of the cache, or of the Hessian information that a
    second-order baseline keeps; `pseudoinverses` how many of the cache's mini-batches had a singular kernel matrix
    (with `resample`, of the epoch that had most), `stalled` how many steps "monotone" did not take.
    """

    optimizer: str
    seed: int
    test_accuracy: float
    last_test_accuracy: float
    validation_accuracy: float
    train_accuracy: float
    best_epoch: int
    epochs: int
    settled: bool
    loss: float
    seconds: float
    cache_seconds: float
    inverse_bytes: int
    pseudoinverses: int
    stalled: int


def train_epoch(model: nn.Module, optimizer: Optimizer, batches: Iterable[Batch]) -> Tensor:
    """One pass over the mini-batches; the mean over instances of the loss as each was met, a 0-d float64 tensor.

    Nothing waits for the device on the way, but in L-BFGS.
    """
    losses, sizes = [], []
    takes_loss = isinstance(optimizer, TAKES_LOSS)
    for x, y, inverse in batches:
        optimizer.zero_grad()
        if takes_loss:
            loss: Tensor = optimizer.step(partial(mean_loss, model, x, y))  # type: ignore[arg-type, assignment]
        else:
            loss = cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            if inverse is None:
                optimizer.step()
            else:
                optimizer.step(inverse=inverse)  # type: ignore[call-overload]
        losses.append(loss.detach())
        sizes.append(len(y))
    weights = torch.tensor(sizes, dtype=torch.float64, device=losses[0].device)
    return torch.stack(losses).double() @ weights / weights.sum()


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mini-batch's mean cross-entropy, to be differentiated by the optimizer."""
    return cross_entropy(model(x), y)


def settled(losses: list[float], *, tolerance: float = 1e-4, patience: int = 3) -> bool:
    """The paper's stopping rule: the last `patience` changes of the epoch's loss are all smaller than `tolerance`."""
    recent = losses[-patience - 1 :]
    return len(recent) > patience and all(abs(b - a) < tolerance for a, b in pairwise(recent))


def build_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """The optimizer that the settings name: KernelSGD, or one of the table `gpu.optim.baselines.BASELINES`."""
    if settings.optimizer == "kernel-sgd":
        return KernelSGD(
            kernel_groups(model, settings.layers),  # type: ignore[arg-type]
            settings.lr,
            weight_decay=settings.weight_decay,
            decay=settings.decay,  # type: ignore[arg-type]
            bias=settings.bias,  # type: ignore[arg-type]
            step_rule=settings.step_rule,  # type: ignore[arg-type]
            model=model,
        )
    options = Options(
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        history=settings.history,
        seed=settings.seed,
    )
    return BASELINES[settings.optimizer]([p for p in model.parameters() if p.requires_grad], options)


def epochs_of_batches(
    settings: Settings, X: Tensor, y: Tensor, start_epoch: int = 0, kernel_input: Tensor | None = None
) -> Generator[tuple[list[Batch], KernelCache | None]]:
    """The mini-batches of every epoch from `start_epoch` on, and the cache that their inverses come from.

    All optimizers get the same mini-batches in the same order: one composition for the whole run or, with `resample`,
    one an epoch, drawn from (seed, epoch). `kernel_input`: what the kernel sees where that is not X. Raises UsageError
    where the inverses cannot be had (a memory budget too small, an indefinite kernel matrix).
    """
    n, m, seed = len(X), settings.batch_size, settings.seed
    K = X if kernel_input is None else kernel_input
    epochs: Iterator[tuple[list[Batch], KernelCache | None]]
    seeds: Iterator[int | tuple[int, int]]
    try:
        if settings.optimizer == "kernel-sgd":
            options: dict[str, Any] = {name: getattr(settings, name) for name in CACHE_OPTIONS}
            if settings.kernel == "random-psd":
                epochs = iter([random_inverses(settings, X, y)])
            elif settings.resample:
                caches = resampled(K, m, seed=seed, start_epoch=start_epoch, epochs=settings.epochs, **options)
                epochs = ((with_inverses(cache, X, y, kernel_input), cache) for cache in caches)
            else:
                cache = KernelCache(K, mini_batches(n, m, seed=seed), **options)
                epochs = iter([(with_inverses(cache, X, y, kernel_input), cache)])
        else:
            seeds = ((seed, epoch) for epoch in count(start_epoch)) if settings.resample else iter([seed])
            epochs = (([(X[i], y[i], None) for i in mini_batches(n, m, seed=s)], None) for s in seeds)
        yield from epochs if settings.resample else repeat(next(epochs))
    except ValueError as error:
        raise UsageError(str(error)) from error


def with_inverses(cache: KernelCache, X: Tensor, y: Tensor, kernel_input: Tensor | None) -> list[Batch]:
    """The cache's mini-batches of X, each with its inverse; `kernel_input` as in `epochs_of_batches`."""
    if kernel_input is None:
        return list(cache.batches(X, y))
    # The cache has looked at what the kernel sees; the optimizer looks at what the network is run on.
    return [
        (x, labels, replace(inverse, digest=content_digest(x)))
        for _, x, labels, inverse in cache.batches(kernel_input, X, y)
    ]


def random_inverses(settings: Settings, X: Tensor, y: Tensor) -> tuple[list[Batch], KernelCache]:
    """The control of section 4.5: in place of a mini-batch's kernel matrix, A·Aᵀ/m, A (m′, m) standard normal.

    m is the batch size, m′ how many instances the mini-batch has. The paper does not say how its matrices are drawn.
    """
    n, m = len(X), settings.batch_size
    generator = torch.Generator().manual_seed(settings.seed)
    noise = (torch.randn(n, m, generator=generator, dtype=torch.float64) / math.sqrt(m)).to(X.device)
    cache = KernelCache(
        noise,
        mini_batches(n, m, seed=settings.seed),
        kernel="linear",
        ridge=settings.ridge,
        memory_budget=settings.memory_budget,
        dtype=torch.float32,
    )
    inverses = (inverse for _, inverse in cache.batches(noise))
    return [(X[i.indices], y[i.indices], CachedInverse.unchecked(i.matrix)) for i in inverses], cache


def accuracy(model: nn.Module, X: Tensor, y: Tensor) -> Tensor:
    """The fraction of instances whose largest logit is that of their class, a 0-d float64 tensor; evaluation mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        parts = zip(torch.split(X, EVALUATED), torch.split(y, EVALUATED), strict=True)
        right = [(model(x).argmax(1) == labels).sum() for x, labels in parts]
    model.train(training)
    return torch.stack(right).sum().double() / len(y)


def fit(settings: Settings, data: Dataset, folder: Path, *, on_epoch: Callable[[Row], None] = lambda _: None) -> Result:
    """Train until the loss has settled or `settings.epochs` are done; `on_epoch` gets each new row of metrics.csv.

    `folder` receives metrics.csv and checkpoint.safetensors after every epoch, with `record_claims` claims.csv too.
    Where it holds a checkpoint, the run continues from there and ends, bit for bit, where it would have ended without
    the interruption (wall-clock columns aside; on the same machine, with the same number of threads). torch's global
    generator is seeded and used.

    Raises CheckpointError (a checkpoint that is damaged, or of other data or settings) and FloatingPointError (a loss
    that is not finite).
    """
    torch.manual_seed(settings.seed)
    run = Run(settings, data.to(settings.device), folder)
    if run.restore():
        run.write_metrics()
    with closing(epochs_of_batches(settings, run.X, run.y, len(run.history), run.kernel_input)) as epochs:
        while not run.finished:
            started = perf_counter()
            batches, cache = next(epochs)
            fetched = perf_counter()
            run.require_source(cache)
            seen = batches if run.claims is None else run.claims.watched(batches)
            loss = train_epoch(run.model, run.optimizer, seen).item()
            if not math.isfinite(loss):
                raise FloatingPointError(not_finite(settings, len(run.history) + 1, loss, cache))
            if run.claims is not None and cache is not None:
                run.claims.finish_epoch(cache, batches)
            run.record(loss, perf_counter() - started, 0.0 if cache is None else fetched - started, cache)
            run.save()
            on_epoch(run.history[-1])
    return run.result()


class Run:
    """What changes while a run trains, and how it is written down: network, best network, optimizer, history."""

    def __init__(self, settings: Settings, data: Dataset, folder: Path) -> None:
        self.settings, self.data, self.folder = settings, data, folder
        if settings.record_claims and (data.kernel_train is not None or network_of(data.kind, settings) != "mlp"):
            got = f"{described(data.kind, settings)}, on {data.name}"
            raise UsageError(f"record_claims: expected the perceptron on features or images, got {got}")
        parts = data.with_validation(settings.validation, seed=settings.seed)
        assert parts.X_valid is not None
        assert parts.y_valid is not None
        self.X, self.y, self.kernel_input = parts.X_train, parts.y_train, parts.kernel_train
        self.X_held, self.y_held = parts.X_valid, parts.y_valid
        self.model = build_model(data, settings).to(settings.device)
        self.optimizer = build_optimizer(self.model, settings)
        self.claims: ClaimsRecord | None = None
        if settings.record_claims and isinstance(self.optimizer, KernelSGD):
            self.claims = ClaimsRecord(self.model, self.optimizer)
        self.history: list[Row] = []
        self.best: dict[str, Tensor] = {}
        self.inverses: dict[str, Any] = {"source": None, "bytes": 0, "singular": 0}
        settings = replace(settings, network=network_of(data.kind, settings))  # what "auto" was
        self.identity = {"settings": json.loads(json.dumps(asdict(settings))), "data": data.fingerprint()}

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.settings.epochs or settled([row["loss"] for row in self.history])

    @property
    def best_row(self) -> Row:
        return max(reversed(self.history), key=lambda row: row["validation_accuracy"])

    def record(self, loss: float, seconds: float, cache_seconds: float, cache: KernelCache | None) -> None:
        """Evaluate after an epoch and append to the history; keep the network where it is the best so far."""
        if cache is not None:
            singular = max(self.inverses["singular"], cache.singular)
            self.inverses = {"source": cache.source, "bytes": cache.nbytes, "singular": singular}
        held = accuracy(self.model, self.X_held, self.y_held)
        test = accuracy(self.model, self.data.X_test, self.data.y_test)
        before = self.history[-1] if self.history else dict.fromkeys(COLUMNS, 0.0)
        row = (
            len(self.history) + 1,
            loss,
            *torch.stack([held, test]).tolist(),
            before["seconds"] + seconds,
            before["cache_seconds"] + cache_seconds,
        )
        self.history.append(dict(zip(COLUMNS, row, strict=True)))
        if self.best_row is self.history[-1]:
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def save(self) -> None:
        """Write checkpoint.safetensors, then metrics.csv and claims.csv."""
        tensors, optimizer = checkpoint.pack_optimizer(self.optimizer)
        tensors |= {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors["rng"] = torch.get_rng_state()
        record = {**self.identity, "inverses": self.inverses, "history": self.history, "optimizer": optimizer}
        if self.claims is not None:
            tensors |= self.claims.tensors()
            record["claims"] = self.claims.rows
        checkpoint.save(self.folder / CHECKPOINT, tensors, record)
        self.write_metrics()

    def write_metrics(self) -> None:
        lines = [",".join(COLUMNS), *(",".join(map(str, row.values())) for row in self.history)]
        checkpoint.write_text(self.folder / METRICS, "\n".join(lines) + "\n")
        if self.claims is not None:
            checkpoint.write_text(self.folder / CLAIMS, self.claims.text())

    def restore(self) -> bool:
        """Continue from the folder's checkpoint; whether there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        tensors, record = checkpoint.load(path)
        self._require_identity(path, record)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor.to(self.settings.device)
        self.model.load_state_dict(parts["model"])
        self.best = parts["best"]
        checkpoint.unpack_optimizer(self.optimizer, tensors, record["optimizer"])
        torch.set_rng_state(tensors["rng"])
        self.history, self.inverses = record["history"], record["inverses"]
        if self.claims is not None:
            self.claims.restore(tensors, record["claims"])
        return True

    def _require_identity(self, path: Path, record: dict[str, Any]) -> None:
        if "inverses" not in record:
            raise CheckpointError(f"{path}: of another version of this program; remove it to start this run anew")
        if record.get("data") != self.identity["data"]:
            raise CheckpointError(f"{path}: of a run on other data; continue with the data it began with")
        then, now = {**NEWER, **record["settings"]}, self.identity["settings"]
        if then != now:
            changed = [f"{key} was {then.get(key)}, is {now[key]}" for key in now if then.get(key) != now[key]]
            raise CheckpointError(f"{path}: of a run with other settings: {'; '.join(changed)}")

    def require_source(self, cache: KernelCache | None) -> None:
        """The inverses must be of the data, mini-batches and kernel that the run has been stepping with."""
        source = None if cache is None else cache.source
        if self.history and source != self.inverses["source"]:
            raise CheckpointError(
                f"{self.folder / CHECKPOINT}: its inverse kernel matrices were {self.inverses['source']}, now they are "
                f"{source}: other data, mini-batches or kernel"
            )

    def result(self) -> Result:
        """The run's figures, once it is finished."""
        self.model.load_state_dict(self.best)
        best, last = self.best_row, self.history[-1]
        return Result(
            optimizer=self.settings.optimizer,
            seed=self.settings.seed,
            test_accuracy=best["test_accuracy"],
            last_test_accuracy=last["test_accuracy"],
            validation_accuracy=best["validation_accuracy"],
            train_accuracy=accuracy(self.model, self.X, self.y).item(),
            best_epoch=int(best["epoch"]),
            epochs=len(self.history),
            settled=settled([row["loss"] for row in self.history]),
            loss=last["loss"],
            seconds=last["seconds"],
            cache_seconds=last["cache_seconds"],
            inverse_bytes=self.inverses["bytes"] or hessian_bytes(self.optimizer),
            pseudoinverses=self.inverses["singular"],
            stalled=sum(group.get("stalled", 0) for group in self.optimizer.param_groups),
        )


def not_finite(settings: Settings, epoch: int, loss: float, cache: KernelCache | None) -> str:
    """What to say of a loss that is not finite: with which settings, and what to do."""
    message = f"the loss of epoch {epoch} is {loss} with lr = {settings.lr}"
    if cache is None:
        return f"{message}; lower lr or scale the data"
    return (
        f"{message}, gamma = {settings.gamma}, largest entry of P = {cache.largest:.4g}; "
        "lower lr, raise gamma or add a ridge"
    )
