"""Where a study's workers are: in processes of this machine, on hosts that join it, or where Ray places them.

Decides by what hosts are let in, and that nothing is begun where that can't be done. Knows no study.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tuner.config import RunConfig
from tuner.doors import LOOPBACK, door
from tuner.errors import UsageError
from tuner.hosting import at_door
from tuner.listening import Open

ENGINES = ("processes", "ray")


@dataclass(frozen=True, slots=True)
class Place:
    """Where workers are to be: `listen` lets hosts join at HOST[:PORT], and only they train if the study has no `own`;
    with the engine ray, it places the study's own, each with a share of a GPU, in the cluster at an address or, without
    one, on this machine.
    """

    listen: str | None = None
    engine: str = "processes"
    gpus: float = 0.0
    ray: str | None = None
    own: bool = True

    @property
    def is_elsewhere(self) -> bool:
        """Whether no worker need be on this machine."""
        return self.engine != ENGINES[0] or not self.own

    @property
    def is_here(self) -> bool:
        """Whether all workers are processes of this machine's, which nobody joins."""
        return self.listen is None and self.engine == ENGINES[0]


HERE = Place()


@contextmanager
def placed(place: Place, config: RunConfig) -> Iterator[Open | None]:
    """Hold what opens an engine of a configuration's workers there; None where it is the one of this machine.

    Raises:
        UsageError: it can't be opened there.
    """
    if place.engine not in ENGINES:
        raise UsageError(f"--engine {place.engine}: is none; one of {', '.join(ENGINES)}")
    if place.engine == ENGINES[0] and (place.gpus or place.ray):
        raise UsageError("--gpus-per-worker and --ray-address go with --engine ray; leave them out, or set that")
    if not place.own and (place.listen is None or place.engine != ENGINES[0]):
        raise UsageError("--workers 0: leaves the training to others; it goes with --listen, by which they join")
    if place.engine != ENGINES[0] and not place.gpus and config.training.device == "cuda":
        raise UsageError("training.device: cuda needs --gpus-per-worker, the share of a GPU that Ray gives each worker")
    with ExitStack() as stack:
        if place.is_here:
            yield None
        elif place.engine == ENGINES[0]:
            yield at_door(stack.enter_context(door(place.listen or LOOPBACK)), place.own)
        else:
            from tuner import on_ray

            near = place.ray is None
            opened = stack.enter_context(door(place.listen or (LOOPBACK if near else "0.0.0.0")))
            stack.enter_context(on_ray.started(config.budget.workers, place.gpus, place.ray))
            yield on_ray.at_door(opened, place.gpus, place.listen is not None)
