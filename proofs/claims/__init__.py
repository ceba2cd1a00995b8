"""The claims, one file each (a few closely related ones share a file). A new claim is one file and one line here."""

from importlib import import_module

from proofs.claim import Claim

FILES: tuple[str, ...] = (
    "one_instance",
    "mini_batch",
    "own_loss",
    "weight_decay",
    "momentum",
    "earlier_layers",
    "indefinite",
    "soft_labels",
    "bias_and_ridge",
    "kernel_machine",
    "projection",
    "cross_entropy",
    "reshaping",
    "convergence",
    "proposition",
    "memory",
    "speed",
    "accuracy",
    "entries",
    "batch_size",
    "kernels",
    "cost",
    "saddles",
)


def load() -> tuple[Claim, ...]:
    """All claims, in the order of the table. Raises ValueError where two have one name."""
    claims = tuple(claim for file in FILES for claim in import_module(f"proofs.claims.{file}").CLAIMS)
    names = [claim.name for claim in claims]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"name: expected one claim a name, got {sorted(twice)} twice")
    return claims
