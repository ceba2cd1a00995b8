"""Times of Table 2 (section 4.2), means of five runs: "up to 30 times faster", "faster ... with image data"."""

from collections.abc import Iterator
from fractions import Fraction

from proofs.certificates import less, require
from proofs.claim import Certificate, Claim, Line, Verdict
from proofs.claims.tables import DATA_SETS, SIGNIFICANT, figures, squared_t

SECOND, PUBLISHED, FIRST = "table2_second_order_submission", "table3_second_order_published", "table2_first_order"


def the_largest_quotient_of_two_means() -> Iterator[Line]:
    """ESGD over Kernel SGD on mnist, 8671/272 = 31.9, is the only one above 30; L-BFGS on usps comes to 29.6."""
    times = figures(SECOND, "time_s")
    quotients = {key: time.mean / times[key[0], "ours"].mean for key, time in times.items() if key[1] != "ours"}
    above = [key for key, quotient in quotients.items() if quotient >= 30]
    yield require("only mnist, ESGD has a quotient of 30 or more", above == [("mnist", "ESGD")])
    yield less("30", 30, "8671/272", quotients["mnist", "ESGD"])
    yield less("L-BFGS on usps, 888/30,", quotients["usps", "L-BFGS"], "30", 30)


def its_uncertainty() -> Iterator[Line]:
    """ESGD on mnist: 8671 ± 9148; two standard errors of five runs reach to a quotient of 1.8."""
    times = figures(SECOND, "time_s")
    esgd, ours = times["mnist", "ESGD"], times["mnist", "ours"]
    yield less("mean of ESGD on mnist", esgd.mean, "its standard deviation", esgd.std)
    yield less(
        "t² of the difference", squared_t(esgd, ours), "what five runs need to tell two means apart, 5.3", SIGNIFICANT
    )
    # Two standard errors, squared so that no root is taken: (8671 − 1.8·272)² < 4·(9148²/5).
    gap = esgd.mean - Fraction(18, 10) * ours.mean
    yield less("(8671 − 1.8·272)²", gap**2, "(2 standard errors)²", 4 * esgd.squared_error)


def slower_on_the_text_data() -> Iterator[Line]:
    """L-BFGS takes less time on cov-tw and imdb (and stops at chance); as published R-L-BFGS on mnist and usps."""
    times = figures(SECOND, "time_s")
    for data in ("cov-tw", "imdb"):
        yield less(f"{data}: L-BFGS", times[data, "L-BFGS"].mean, "Kernel SGD", times[data, "ours"].mean)
    times = figures(PUBLISHED, "time_s")
    for data in ("mnist", "usps"):
        yield less(
            f"{data}: R-L-BFGS (published)", times[data, "R-L-BFGS"].mean, "Kernel SGD", times[data, "ours"].mean
        )
    faster = [data for data in DATA_SETS if times[data, "ours"].mean < times[data, "ESGD"].mean]
    yield require("it is faster than ESGD on all six", faster == list(DATA_SETS))


def faster_with_image_data() -> Iterator[Line]:
    """cifar10 475 against 582 and 644, s-cov 64 against 71 and 74: means; on s-cov five runs do not tell them apart."""
    times = figures(FIRST, "time_s")
    for data in ("cifar10", "s-cov"):
        for other in ("SGD", "SGD+M"):
            yield less(f"{data}: Kernel SGD", times[data, "ours"].mean, other, times[data, other].mean)
    for other in ("SGD", "SGD+M"):
        t = squared_t(times["s-cov", "ours"], times["s-cov", other])
        yield less(f"s-cov, t² against {other}", t, "5.3", SIGNIFICANT)
        yield less(
            "5.3",
            SIGNIFICANT,
            f"cifar10, t² against {other}",
            squared_t(times["cifar10", "ours"], times["cifar10", other]),
        )


def slower_than_sgd_elsewhere() -> Iterator[Line]:
    """On the four other data sets SGD's mean time is the shorter one."""
    times = figures(FIRST, "time_s")
    for data in ("mnist", "usps", "cov-tw", "imdb"):
        yield less(f"{data}: SGD", times[data, "SGD"].mean, "Kernel SGD", times[data, "ours"].mean)


CLAIMS = (
    Claim(
        name="up-to-30-times-faster",
        where="abstract, 1, 4.2",
        statement="Kernel SGD converges up to 30 times faster than the second-order baselines.",
        verdict=Verdict.HOLDS_IF,
        condition="read as one quotient of two means, 8671/272 on mnist; 8671 ± 9148 does not support a factor of 2",
        evidence=(Certificate(the_largest_quotient_of_two_means), Certificate(its_uncertainty)),
    ),
    Claim(
        name="faster-than-second-order",
        where="1, 4.2, 6",
        statement="Kernel SGD converges faster than the existing second-order methods.",
        verdict=Verdict.FAILS,
        condition=(
            "holds against ESGD on all six; L-BFGS is faster on both text sets, which 4.2 concedes (times left out as "
            "published), and R-L-BFGS (published) on mnist and usps"
        ),
        evidence=(Certificate(slower_on_the_text_data),),
    ),
    Claim(
        name="faster-than-first-order-with-images",
        where="4.2, sanity check",
        statement="Kernel SGD converges even faster than the first-order optimizers with image data.",
        verdict=Verdict.HOLDS_IF,
        condition="read as means; beyond the noise on cifar10 alone, and SGD is faster on the four other data sets",
        evidence=(Certificate(faster_with_image_data), Certificate(slower_than_sgd_elsewhere)),
    ),
)
