"""Section 3.2: the cost of the kernel matrices "is rather small compared with the training of the whole network"."""

from collections.abc import Iterator
from fractions import Fraction

from proofs.certificates import less
from proofs.claim import Certificate, Claim, Derivation, Line, Verdict
from proofs.claims.memory import M, mlp
from proofs.claims.symbolic import identity, sp

LONGEST = 500  # epochs, section 4.1


def resnet18_products() -> int:
    """Products of ResNet-18's 3 × 3 convolutions on one 32 × 32 image, the shortcuts left out."""
    total, width = 3 * 64 * 9 * 32**2, 64
    for out, pixels in ((64, 32**2), (128, 16**2), (256, 8**2), (512, 4**2)):
        total += 9 * pixels * (width * out + 3 * out * out)
        width = out
    return total


def flops_an_instance() -> Iterator[Line]:
    """Gram 2m²d and inverse m³ by a Cholesky factor, once a mini-batch; G·P, 2·n_c·k², once a step."""
    m, d, n_c, p = sp.symbols("m d n_c p", positive=True)
    k = sp.Symbol("k", positive=True)
    kernel = (2 * m**2 * d + m**3) / m
    step, network = 2 * n_c * k**2 / m, 6 * p
    yield identity("Gram and inverse, an instance, once", kernel, 2 * m * d + m**2)
    yield "G·P, an instance and epoch, k = min(m, d_in)", step
    yield "the network of p weights, forward 2p and backward 4p, an instance and epoch", network


def against_the_networks_of_section_4() -> Iterator[Line]:
    """mnist and usps, hidden layers of 100 (two); ResNet-18, from below, by its convolutions."""
    for data, d, p in (("mnist", 780, mlp(780, 100, 100, 10)), ("usps", 256, mlp(256, 100, 100, 10))):
        once, step, network = 2 * M * d + M**2, Fraction(2 * 10 * M**2, M), 6 * p
        yield less(f"{data}: kernel matrices, once", once, "1/5 of one epoch of the network", Fraction(network, 5))
        yield less(f"{data}: the steps", step, "1/100 of the network", Fraction(network, 100))
        yield less(
            f"{data}: once in {LONGEST} epochs",
            Fraction(once, LONGEST),
            "1/2000 of the network",
            Fraction(network, 2000),
        )
    yield less(
        "cifar10: kernel matrices, once",
        2 * M * 3072 + M**2,
        "1/5000 of one epoch of ResNet-18",
        Fraction(6 * resnet18_products(), 5000),
    )


def sampled_anew_it_is_paid_every_epoch() -> Iterator[Line]:
    """Algorithm 1 samples (line 3) and computes H (line 4) inside both loops: usps pays over 1/8 every epoch."""
    once, network = 2 * M * 256 + M**2, 6 * mlp(256, 100, 100, 10)
    yield less("1/8 of one epoch of the network", Fraction(network, 8), "usps: kernel matrices, every epoch", once)


CLAIMS = (
    Claim(
        name="kernel-cost-is-small",
        where="3.2",
        statement="The computation of the kernel matrices is small compared with the training of the whole network.",
        verdict=Verdict.HOLDS_IF,
        condition=(
            "tabular networks: mini-batches fixed, then below 1/5 of one epoch on mnist and usps, once (Algorithm 1 as "
            "printed samples anew and pays that in every epoch); ResNet-18: below 1/5000 of an epoch even so; text: "
            "the kernel's input is not said"
        ),
        evidence=(
            Derivation(flops_an_instance),
            Certificate(against_the_networks_of_section_4),
            Certificate(sampled_anew_it_is_paid_every_epoch),
        ),
    ),
)
