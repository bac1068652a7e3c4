"""Make what the README shows of a real study, all of it from one run: its screen, its last words, its report and its
page in optuna-dashboard. Needs Chromium.

    python docs/make_pictures.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
PICTURES, README = ROOT / "docs" / "pictures", ROOT / "README.md"
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
        now = time.monotonic()
        screen.tell(news, pace.left(now) if going else pace.after(news, now))
        ended += not going
        if ended == 12 and going and len(screen.running) == plan.space.config.budget.workers:
            console.print(screen.drawn())
            console.save_svg(str(PICTURES / "run.svg"), title="tuner run search_spaces/digits.yaml")
            print(PICTURES / "run.svg")
            ended = 10_000


def quote(said: str) -> None:
    """Put a run's last words into the README, in place of those that stand there."""
    text = README.read_text(encoding="utf-8")
    block = re.compile(r"(?<=It ends\nwith:\n\n```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
    assert len(block.findall(text)) == 1
    README.write_text(block.sub(lambda _: said.rstrip("\n") + "\n", text), encoding="utf-8")
    print(README)


def main() -> None:
    """Make them all."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is needed: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # so that paths are told as they are to who follows the README
        watch(ROOT / "search_spaces" / "digits.yaml", Path("studies"))
        quote(subprocess.run([*TUNER, "show", "digits"], check=True, capture_output=True, text=True).stdout)
        shoot(chromium, Path("studies/digits/report.html").resolve().as_uri(), "report.png", 1100, 1500)
        words = [*TUNER, "dashboard", "digits", "--no-browser", "--port", str(PORT)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as server:
            try:
                page = f"http://127.0.0.1:{PORT}/dashboard/studies/1"
                _await(page)
                shoot(chromium, page, "dashboard.png", 1500, 2240)
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
