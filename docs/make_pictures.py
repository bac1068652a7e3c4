"""Make the pictures of the README from a real study: the report, the dashboard, the terminal. Needs Chromium.

python docs/make_pictures.py [FOLDER_OF_A_FINISHED_STUDY]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
TUNER = [sys.executable, "-m", "tuner"]
PORT = 8917


def shoot(chromium: str, url: str, picture: str, width: int, height: int) -> None:
    """Take a picture of a page."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={profile}", f"--window-size={width},{height}", "--virtual-time-budget=15000",
             f"--screenshot={PICTURES / picture}", url],
            check=True, capture_output=True, timeout=180,
        )  # fmt: skip
    print(PICTURES / picture)


def watch(space: Path, folder: Path) -> None:
    """Run a study, and draw its screen when some trials have ended."""
    from rich.console import Console

    from tuner.live import Screen
    from tuner.planning import prepare
    from tuner.record import TrialRecord
    from tuner.tuning import conduct, pace_of

    plan = prepare(space, studies_dir=folder)
    console = Console(record=True, width=118, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    screen, run, pace, ended = Screen(console), conduct(plan), pace_of(plan), 0
    began = False
    for news in run:
        if not began:
            screen.begin(plan.study, plan.space, plan.trials)
            began = True
        going = isinstance(news, TrialRecord) and not news.ended
        screen.tell(news, pace.left if going else pace.after(news, time.monotonic()))
        ended += not going
        if ended == 12 and going and len(screen.running) == plan.space.config.budget.workers:
            console.print(screen.drawn())
            console.save_svg(str(PICTURES / "run.svg"), title="tuner run search_spaces/digits.yaml")
            print(PICTURES / "run.svg")
            ended = 10_000


def main() -> None:
    """Make them all."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is needed: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]).resolve().parent if len(sys.argv) > 1 else Path(temporary)
        if len(sys.argv) == 1:
            watch(ROOT / "search_spaces" / "digits.yaml", folder)
        shoot(chromium, (folder / "digits" / "report.html").as_uri(), "report.png", 1000, 1500)
        words = [*TUNER, "dashboard", "digits", "--studies-dir", str(folder), "--no-browser", "--port", str(PORT)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as server:
            try:
                page = f"http://127.0.0.1:{PORT}/dashboard/studies/1"
                _await(page)
                shoot(chromium, page, "dashboard.png", 1500, 1750)
            finally:
                server.terminate()


def _await(url: str) -> None:
    for _ in range(200):
        try:
            urlopen(url).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the dashboard doesn't answer")


if __name__ == "__main__":
    main()
