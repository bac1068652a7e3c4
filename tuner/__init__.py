"""tuner: search hyperparameters and regularization together, and stop networks from overfitting.

    study = tuner.tune("search_spaces/digits.yaml", trials=50, workers=2)
    best = tuner.load_best("digits")

Names are imported when they are first used, so that `import tuner` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tuner.best import BestConfig, load_best
    from tuner.config import RunConfig
    from tuner.errors import DataError, SpaceError, StorageError, TunerError, UsageError, UserCodeError
    from tuner.looping import Run
    from tuner.pruner import OverfitPruner, report
    from tuner.study import Study, open_study
    from tuner.tuning import tune
    from tuner.watching import Watch

_HOMES = {
    "BestConfig": "best", "load_best": "best", "RunConfig": "config",
    "DataError": "errors", "SpaceError": "errors", "StorageError": "errors", "TunerError": "errors",
    "UsageError": "errors", "UserCodeError": "errors",
    "OverfitPruner": "pruner", "Run": "looping", "report": "pruner",
    "Study": "study", "open_study": "study", "tune": "tuning", "Watch": "watching",
}  # fmt: skip

__all__ = [
    "BestConfig", "DataError", "OverfitPruner", "Run", "RunConfig", "SpaceError", "StorageError", "Study", "TunerError",
    "UsageError", "UserCodeError", "Watch", "__version__", "load_best", "open_study", "report", "tune",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"tuner.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
