"""Hugging Face transformers: a TrainerCallback.

    Trainer(..., eval_dataset={"train": some_training_rows, "val": validation_rows}, callbacks=[OverfitStopping()])

With `eval_strategy="epoch"`, and two evaluation sets by these names, train and validation are measured alike. With one
evaluation set the newest training loss that was logged stands for train; it is measured while training, with dropout.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tuner.integrations.keeper import Keeper, copied, figure
from tuner.watching import Watch


class OverfitStopping(TrainerCallback):
    """Stops a Trainer when its model overfits, and puts the weights of the best evaluation back when it has trained.

    Args:
        watch: one that judges; by default a `tuner.Watch` of the Trainer's epochs, with the `rules` given (see there).
        train, val: the names of the evaluation sets.
        restore: whether the weights of the best epoch are kept and put back.
    """

    def __init__(
        self, watch: Watch | None = None, *, train: str = "train", val: str = "val", restore: bool = True, **rules: Any
    ) -> None:
        self.keeper, self.names = Keeper(watch, restore, rules), (f"eval_{train}_loss", f"eval_{val}_loss")
        self.told: dict[str, float] = {}

    @property
    def watch(self) -> Watch | None:
        """What judges the run that is under way, or the last one."""
        return self.keeper.watch

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.keeper.begin(math.ceil(args.num_train_epochs))
        self.told = {}

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if self.watch is None:  # evaluated without being trained
            return
        metrics, (train, val) = dict(more["metrics"]), self.names
        if "eval_loss" in metrics:
            logged = [entry["loss"] for entry in state.log_history if "loss" in entry]
            metrics |= {val: metrics["eval_loss"]} | ({train: logged[-1]} if logged else {})
        losses = {name: value for name, value in metrics.items() if name.endswith("_loss")}
        again = set(losses) & set(self.told)  # the sets come one after the other
        self.told |= losses
        if not {train, val} <= set(self.told) and not again:
            return
        where, model = "what was evaluated", more["model"]
        found = figure(self.told, train, where), figure(self.told, val, where)
        self.told = {}
        if self.keeper.see(*found, lambda: copied(model)):
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.keeper.end(more["model"].load_state_dict)
