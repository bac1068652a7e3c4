"""TensorBoard: `tuner run --track tensorboard`, then `tensorboard --logdir studies/NAME/tensorboard`.

Each trial is a run of its own, with its curves and its hyperparameters; one that is there already isn't written again.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from tuner.record import shown

if TYPE_CHECKING:
    from tuner.record import TrialRecord
    from tuner.study import Study

FOLDER, WRITING = "tensorboard", ".writing"


class Tracker:
    """Writes a folder of event files for each trial into the folder of its study."""

    def __init__(self) -> None:
        self.folder = Path()

    def begin(self, study: Study) -> None:
        self.folder = Path(study.folder) / FOLDER

    def trial(self, record: TrialRecord) -> None:
        place = self.folder / f"{record.number:05d}"
        if place.exists():
            return
        part = place.with_name(place.name + WRITING)  # in place once it is whole
        shutil.rmtree(part, ignore_errors=True)
        with SummaryWriter(str(part)) as writer:
            for epoch in record.curve.epochs if record.curve else ():
                for name, measure in (("train", epoch.train), ("val", epoch.val)):
                    for figure, value in {"loss": measure.loss, **measure.metrics}.items():
                        writer.add_scalar(f"{figure}/{name}", value, epoch.number)
            told = {name: value for name, value in shown(record).items() if isinstance(value, (int, float))}
            if record.score is not None and math.isfinite(record.score.value):
                told["score"] = record.score.value
            values = {name: _plain(value) for name, value in record.all_values.items()}
            for summary in hparams(values, told):  # type: ignore[no-untyped-call]
                writer.file_writer.add_summary(summary)
            for name, value in told.items():
                writer.add_scalar(name, value, 0)
            writer.add_text("reason", record.reason or record.state)
        part.rename(place)

    def end(self, study: Study) -> None:
        pass


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
