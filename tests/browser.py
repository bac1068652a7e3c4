"""A real Chromium without a window: what a page comes to once its scripts have run, and what it looks like."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MISSING = "NOT TESTED IN A BROWSER: chromium is missing (apt-get install chromium)"
SEEN = re.compile(r'data-seen="([^"]*)"')


def chromium() -> str:
    """Return the browser's path; without one, the test is skipped, and says so."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip(MISSING)
    return found


def dom(url: str, folder: Path, *options: str, width: int = 1200, milliseconds: int = 10_000) -> str:
    """Return a page's document after so many milliseconds of its own time."""
    return _run(folder, f"--window-size={width},2000", f"--virtual-time-budget={milliseconds}", *options,
                "--dump-dom", url)  # fmt: skip


def shot(url: str, picture: Path, folder: Path, width: int = 1500, height: int = 1800) -> None:
    """Take a picture of a page."""
    _run(folder, f"--window-size={width},{height}", "--hide-scrollbars", "--virtual-time-budget=15000",
         f"--screenshot={picture}", url)  # fmt: skip


def _run(folder: Path, *words: str) -> str:
    plain = ["--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([chromium(), *plain, *words], capture_output=True, text=True, timeout=150, check=True)
    return done.stdout
