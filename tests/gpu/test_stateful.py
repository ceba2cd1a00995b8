"""Optimizer and cache under any sequence of what people do to them, with `reference.algorithm` as the model.

The reference's state is the torch state before every step (in float64 that is exact), so that each step is held to what
one step may differ by (`step_bound`), however long the sequence was.
"""

import json
from copy import deepcopy
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor, nn

from gpu.optim import CachedInverse, KernelCache, KernelSGD, kernel_inverse, mini_batches, resampled
from reference import algorithm
from reference.algorithm import Settings, State
from reference.network import Layer, initial_layers
from tests.gpu.networks import backward, kernel_sgd, layers_of, network, random
from tests.gpu.step_bound import assert_close, step_bound

N, D, CLASSES = 11, 4, 3
X, Y = random(N, D), torch.arange(N) % CLASSES
KERNEL: dict[str, Any] = {"gamma": 0.5, "ridge": 0.1}


class OptimizerAndCache(RuleBasedStateMachine):
    """A training run; `saved` is a checkpoint of it, `cache` what its inverses come from."""

    saved: tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], str] | None = None
    resampling = False

    @initialize(
        layers=st.sampled_from(("last", "all", "none")),
        decay=st.sampled_from(("l2", "decoupled")),
        bias=st.sampled_from(("plain", "augmented")),
        momentum=st.sampled_from((0.0, 0.9)),
        m=st.integers(1, 6),
    )
    def start(self, layers: Any, decay: Any, bias: Any, momentum: float, m: int) -> None:
        self.settings = Settings(
            lr=0.1, layers=layers, decay=decay, bias=bias, momentum=momentum, weight_decay=0.05, **KERNEL
        )
        self.m, self.epoch = m, 0
        self.model = network(initial_layers((D, 5, CLASSES), seed=0))
        self.optimizer = kernel_sgd(self.model, self.settings)
        self.cache = KernelCache(X, mini_batches(N, m, seed=0), **KERNEL)
        self.pairs = iter(())

    def state(self) -> State:
        """What torch holds, as the reference's state."""
        velocity = []
        for module in self.model:
            if isinstance(module, nn.Linear):
                buffers = [self.optimizer.state[p].get("momentum_buffer", 0 * p) for p in (module.weight, module.bias)]
                velocity.append(Layer(*(b.detach().numpy().copy() for b in buffers)))
        return State(layers_of(self.model), tuple(velocity))

    def step_on(self, x: Tensor, y: Tensor, inverse: CachedInverse) -> None:
        before = self.state()
        self.optimizer.zero_grad()
        loss = backward(self.model, x, y).item()
        self.optimizer.step(inverse=inverse)
        after, found = self.state(), inverse.matrix.numpy()

        # Conditions are below 70, and 30 times the bounds of a Gram matrix and of an inverse stay below 1e-9 with that.
        (exact,) = algorithm.inverses(x.numpy(), [np.arange(len(x))], self.settings)
        assert np.linalg.norm(found - exact) <= 1e-9 * np.linalg.norm(exact)
        arguments = before, x.numpy(), y.numpy(), found, self.settings
        bound = step_bound(*arguments, "float64")
        expected, exact_loss = algorithm.step(*arguments)
        assert abs(loss - exact_loss) <= bound.loss
        assert_close(after.layers, expected.layers, bound.layers, "weights")
        if self.settings.momentum:
            assert_close(after.velocity, expected.velocity, bound.velocity, "velocity")

    @rule()
    def step_on_the_next_mini_batch(self) -> None:
        pair = next(self.pairs, None)
        if pair is None:
            self.pairs = self.cache.batches(X, Y)
            pair = next(self.pairs)
        self.step_on(*pair)

    @rule(number=st.integers(0, 10))
    def step_on_any_mini_batch(self, number: int) -> None:
        indices = self.cache._indices[number % len(self.cache)]
        x = X[indices]
        self.step_on(x, Y[indices], self.cache.lookup(x))

    @rule(indices=st.lists(st.integers(0, N - 1), min_size=1, max_size=6, unique=True))
    def step_on_an_inverse_computed_on_the_spot(self, indices: list[int]) -> None:
        self.step_on(X[indices], Y[indices], kernel_inverse(X[indices], **KERNEL))

    @precondition(lambda self: self.settings.layers != "none" and len(self.cache) > 1)
    @rule(number=st.integers(0, 10), away=st.integers(1, 9))
    def the_inverse_of_another_mini_batch_is_refused(self, number: int, away: int) -> None:
        number, other = number % len(self.cache), (number + away) % len(self.cache)
        indices = self.cache._indices[number]
        inverse = self.cache.lookup(X[self.cache._indices[other]])
        before = self.state()
        self.optimizer.zero_grad()
        backward(self.model, X[indices], Y[indices])
        if number != other:
            with pytest.raises(ValueError, match="not what the model was run on"):
                self.optimizer.step(inverse=inverse)
        np.testing.assert_equal(astuple(self.state()), astuple(before))

    @rule(lr=st.sampled_from((0.01, 0.1, 0.5)), as_tensor=st.booleans())
    def change_the_learning_rate(self, lr: float, as_tensor: bool) -> None:
        self.settings = replace(self.settings, lr=lr)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(lr, dtype=torch.float64) if as_tensor else lr

    @rule()
    def zero_grad_after_a_backward_pass(self) -> None:
        backward(self.model, X, Y)
        self.optimizer.zero_grad()

    @rule()
    def evaluate(self) -> None:
        with torch.no_grad():
            self.model(X)

    @rule()
    def save(self) -> None:
        weights = {name: p.detach().clone() for name, p in self.model.state_dict().items()}
        state = self.optimizer.state_dict()
        tensors = {number: {name: t.clone() for name, t in own.items()} for number, own in state["state"].items()}
        self.saved = weights, tensors, json.dumps(state["param_groups"], default=float)
        self.saved_state, self.saved_settings = self.state(), self.settings
        self.saved_run = self.cache, self.resampling, self.epoch

    @precondition(lambda self: self.saved is not None)
    @rule(fresh=st.booleans())
    def load(self, fresh: bool) -> None:
        """Into the optimizer at hand, or into a new one as after a restart, with the cache built again."""
        assert self.saved is not None
        weights, tensors, groups = self.saved
        self.settings, (self.cache, self.resampling, self.epoch) = self.saved_settings, self.saved_run
        if fresh:
            self.model = network(initial_layers((D, 5, CLASSES), seed=1))
            self.optimizer = kernel_sgd(self.model, self.settings)
            self.cache = KernelCache(X, self.cache._indices, fixed=not self.resampling, **KERNEL)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict({"state": deepcopy(tensors), "param_groups": json.loads(groups)})
        self.pairs = iter(())
        np.testing.assert_equal(astuple(self.state()), astuple(self.saved_state))

    @precondition(lambda self: not self.resampling)
    @rule(seed=st.integers(0, 3))
    def reorder_the_mini_batches(self, seed: int) -> None:
        """A new composition is a new cache, which the optimizer must be told of once it has stepped with the old."""
        cache = KernelCache(X, mini_batches(N, self.m, seed=seed), **KERNEL)
        self.change_cache(cache, known=cache.source == self.cache.source)

    @rule()
    def resample(self) -> None:
        """Another epoch of one run, except that the first comes after a cache of fixed composition."""
        epochs = resampled(X, self.m, seed=5, start_epoch=self.epoch, **KERNEL)
        cache = next(epochs)
        epochs.close()
        self.change_cache(cache, known=self.resampling)
        self.resampling, self.epoch = True, self.epoch + 1

    def change_cache(self, cache: KernelCache, known: bool) -> None:
        layers = [group for group in self.optimizer.param_groups if group["preconditioned"]]
        if not known and layers and layers[0]["source"] is not None:
            before = self.state()
            x, y, inverse = next(cache.batches(X, Y))
            self.optimizer.zero_grad()
            backward(self.model, x, y)
            with pytest.raises(ValueError, match="from the cache"):
                self.optimizer.step(inverse=inverse)
            np.testing.assert_equal(astuple(self.state()), astuple(before))
            for group in layers:
                group["source"] = None
        self.cache, self.pairs = cache, iter(())

    @invariant()
    def every_preconditioned_layer_knows_the_same_source(self) -> None:
        groups = getattr(self, "optimizer", KernelSGD([torch.zeros(1)])).param_groups
        sources = {group["source"] for group in groups if group["preconditioned"]}
        assert len(sources) <= 1
        assert sources <= {None, self.cache.source if hasattr(self, "cache") else None}


TestOptimizerAndCache = pytest.mark.slow(OptimizerAndCache.TestCase)
