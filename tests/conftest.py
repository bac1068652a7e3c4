"""What the tests of several modules build on: curves from lists of losses, and how hypothesis looks for examples."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import HealthCheck, settings
from postgres import postgres  # noqa: F401  # a fixture

from tuner.config import min_epochs
from tuner.curve import Curve, Epoch, Measure, Standing, rounded

# The same examples every time, and none fails for being slow: tests are of what the code does, not of the machine.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

MakeCurve = Callable[..., Curve]

# Who starts the tests in the background of a script has them ignore Ctrl-C, and every process that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_curve() -> MakeCurve:
    """Return a function that makes a curve; by default train lies 10 % below validation and rises are certain."""

    def make(
        val: Sequence[float],
        train: Sequence[float] | None = None,
        *,
        budget: int | None = None,
        null: float = 2.0,
        metrics: Mapping[str, tuple[float, float]] | None = None,
        n: int = 100,
        se_val: float = 0.01,
        se_gap: float = 0.02,
        rise_se: float = 0.001,
    ) -> Curve:
        budget = budget or len(val)
        curve, standing = Curve(budget, min_epochs(budget), null, n, n), None
        pairs = metrics or {}
        for number, loss in enumerate(val, 1):
            standing = Standing.after(standing, number, loss, curve.first)
            on_train = Measure(train[number - 1] if train else rounded(0.9 * loss), {k: v[0] for k, v in pairs.items()})
            on_val = Measure(loss, {k: v[1] for k, v in pairs.items()})
            rise = rounded(loss - val[standing.best - 1])
            curve = curve.then(
                Epoch(number, on_train, on_val, se_val, se_gap, rise, rise_se if rise else 0.0, 0.5, standing)
            )
        return curve

    return make
