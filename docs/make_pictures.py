"""Draws the pictures of README.md from a fresh demo: needs Debian's chromium and chromium-driver.

Usage: python docs/make_pictures.py [FOLDER OF A FINISHED DEMO]
"""

import shutil
import subprocess
import sys
from pathlib import Path

from selenium import webdriver

PICTURES = Path(__file__).parent / "pictures"
DEMO = Path("runs/demo")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking")


def main() -> None:
    """Make the demo if it is not there, photograph its report, and keep the figures that README.md shows."""
    demo = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    if not (demo / "report.html").exists():
        subprocess.run([sys.executable, "-m", "vitlab", "demo", "--out", str(demo)], check=True)
    PICTURES.mkdir(exist_ok=True)
    photograph((demo / "report.html").resolve(), PICTURES / "report.png", width=1200, height=900)
    shutil.copyfile(demo / "figures" / "attention-rollout.png", PICTURES / "rollout.png")


def photograph(page: Path, picture: Path, *, width: int, height: int) -> None:
    """Save what a browser window of this size shows of a page."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--window-size={width},{height}")
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        driver.get(page.as_uri())
        driver.save_screenshot(str(picture))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
