"""optuna-dashboard in a real browser, on a study of tuner's: what is drawn, what a trial's page says, and to whom."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from browser import dom, shot
from command import SMALL, write

from tuner import dashboard
from tuner.posting import FIGURES
from tuner.study import Study
from tuner.tuning import tune

CONFIRMED = SMALL.replace("confirm: false", "confirm: true").replace("trials: 3", "trials: 8")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("pages")
    return tune(write(folder / "small.yaml", CONFIRMED), studies_dir=folder / "studies")


@pytest.fixture(scope="module")
def port(study: Study) -> Iterator[int]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{study.folder.parent / 'tuner.db'}")
    server = dashboard.listen(storage, port=0, allow_writes=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()
    storage.engine.dispose()


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_page_of_a_study_shows_every_figure_of_ours_and_the_note(study: Study, port: int, tmp_path: Path) -> None:
    page = dom(f"http://127.0.0.1:{port}/dashboard/studies/1", tmp_path, milliseconds=20_000)
    for name in FIGURES:
        # the box of a figure, by its id, with a drawing in it
        assert f"tuner-{name}" in page, name
    titles = re.findall(r'class="gtitle"[^>]*>(.*?)</text>', page)
    assert len(titles) >= len(FIGURES)
    assert study.document["formula"].split("=")[1].split()[0] in plain(page)
    shot(f"http://127.0.0.1:{port}/dashboard/studies/1", tmp_path / "study.png", tmp_path)
    assert (tmp_path / "study.png").stat().st_size > 50_000


def test_the_page_of_the_chosen_trial_says_why_it_ended(study: Study, port: int, tmp_path: Path) -> None:
    best: Any = study.trials[study.document["best"]["trial"]]
    page = dom(f"http://127.0.0.1:{port}/dashboard/studies/1/trials?numbers={best.number}", tmp_path,
               milliseconds=20_000)  # fmt: skip
    said = plain(page)
    assert "The chosen one." in said
    assert "verdict" in said
    assert best.verdict.kind in said


def test_a_name_that_is_led_to_this_machine_by_its_owner_is_refused(port: int, tmp_path: Path) -> None:
    led = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    page = dom(f"http://evil.example:{port}/dashboard", tmp_path, led)
    assert "Optuna Dashboard" not in page
    assert "This dashboard answers only to" in plain(page)
