"""follow(): a study run to its end, and told of on stderr as it goes: drawn on a terminal, else a line a trial.

Decides nothing of the study, and waits for nobody who looks at it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import live, terminal
from tuner.confirmation import Repeating
from tuner.depositing import check
from tuner.placing import Place, placed
from tuner.record import TrialRecord
from tuner.serving import keep_memory
from tuner.space import Space
from tuner.study import Study
from tuner.tracking import tracked
from tuner.workers import Parents, early

if TYPE_CHECKING:
    from tuner.planning import Plan
    from tuner.tuning import News


def follow(
    space: Space,
    storage: str | None,
    studies_dir: Path,
    track: Sequence[str],
    place: Place,
    artifacts: str | None,
    quiet: bool,
) -> Study:
    """Run or resume a study to its end, and return it (see `tuning.tune`).

    Raises:
        TunerError: see its subclasses; each carries one line a problem.
    """
    if artifacts is not None:
        check(artifacts)
    keep_memory()
    screen = live.Screen() if not quiet and live.wanted() else None
    with (
        screen or nullcontext(),
        terminal.warned(screen.warn if screen else terminal.say),
        tracked(track, space.folder) as trackers,
        placed(place, space.config) as hosts,
        early(space) if place.is_here else Parents() as parents,
    ):
        # not before: workers import what they need meanwhile, which takes as long
        from tuner.planning import plan_of
        from tuner.tuning import conduct

        plan = plan_of(space, storage, studies_dir, place.is_elsewhere)
        with closing(conduct(plan, parents, trackers, hosts, artifacts)) as news:
            return _told(news, plan, screen, quiet)


def _told(run: Generator[News, None, Study], plan: Plan, screen: live.Screen | None, quiet: bool) -> Study:
    """Drain a study, telling of each trial; return it."""
    from tuner.tuning import pace_of

    pace, begun = pace_of(plan), quiet
    while True:
        try:
            news = next(run)
        except StopIteration as end:
            study: Study = end.value
            return study
        if not begun:  # not before a trial runs, so that what refuses the study is told alone
            begun = True
            if screen is not None:
                screen.begin(plan.study, plan.space, plan.trials, list(pace.ended.values()), len(pace.repeats))
            else:
                terminal.say(*terminal.run_head(plan.study, plan.space, plan.trials))
        now = time.monotonic()
        if isinstance(news, Repeating) or (isinstance(news, TrialRecord) and not news.ended):
            left, line = pace.left(now), ""
        else:
            left = pace.after(news, now)
            if isinstance(news, TrialRecord):
                line = terminal.trial_line(news, plan.study, left)
            else:
                line = terminal.repeat_line(news, left)
        if screen is not None:
            screen.tell(news, left)
        elif line and not quiet:
            terminal.say(line)
