#!/usr/bin/env python3
"""Makes docs/walkthrough.md and its pictures: one run of the digits smoke pipeline as a person sees it.

    $(tools/setup_browser.sh) tools/walkthrough.py      (after the build; about two minutes)

Every command is run as it stands in the page, on a terminal; what the page shows is what it printed. Times, rates and digests are
those of the machine it ran on.
"""
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import fcntl
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/walkthrough.md"
IMAGES = ROOT / "docs/images"
COLUMNS = 118
URL = "http://127.0.0.1:8080"


class Screen:
    """As much of a terminal as onestep uses: lines, back to the line's start, up, clear to the end of the line, colours."""

    def __init__(self):
        self.lines, self.row, self.pending = [""], 0, ""

    def feed(self, data):
        text = self.pending + data
        self.pending = ""
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b.*", text, re.DOTALL):
            if part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self.fresh = True
            elif re.fullmatch(r"\x1b\[(\d+)A", part):
                self.row = max(0, self.row - int(part[2:-1]))
            elif part == "\x1b[K" or re.fullmatch(r"\x1b\[[0-9;]*m", part):
                continue
            elif part.startswith("\x1b"):
                self.pending = part
            else:
                self.lines[self.row] = part if getattr(self, "fresh", True) else self.lines[self.row] + part
                self.fresh = False

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


class Terminal:
    """A command on a terminal of its own, read while it runs."""

    def __init__(self, command, folder):
        self.screen = Screen()
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(PATH=f"{ROOT}/build/bin:{os.environ['PATH']}", TERM="xterm", NO_COLOR="1", OMPI_MCA_mpi_yield_when_idle="1")
            os.execvp("/bin/bash", ["bash", "-c", command])
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))

    def read_for(self, seconds):
        """False: it has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([self.descriptor], [], [], max(0, end - time.monotonic()))[0]:
                continue
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:  # Linux: the other side is closed
                data = b""
            if not data:
                return False
            self.screen.feed(data.decode(errors="replace"))
        return True

    def wait_until(self, pattern, limit=600):
        end = time.monotonic() + limit
        while not re.search(pattern, self.screen.text()):
            if not self.read_for(0.2) or time.monotonic() > end:
                sys.exit(f"walkthrough: expected {pattern!r}, found:\n{self.screen.text()}")

    def finish(self, limit=600):
        end = time.monotonic() + limit
        while self.read_for(0.2):
            if time.monotonic() > end:
                sys.exit(f"walkthrough: it does not end:\n{self.screen.text()}")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run(command, folder):
    terminal = Terminal(command, folder)
    status = terminal.finish()
    if status != 0:
        sys.exit(f"walkthrough: {command!r} ended with {status}:\n{terminal.screen.text()}")
    return terminal.screen.text()


class Page:
    def __init__(self, folder):
        self.folder, self.parts = folder, []

    def say(self, text):
        self.parts.append(text.strip("\n"))

    def show(self, command, output):
        output = output.replace(str(self.folder), "/srv/onestep")
        self.parts.append(f"```\n$ {command}\n{output}\n```")

    def picture(self, name, what):
        size = (IMAGES / name).stat().st_size
        if size >= 150_000:
            sys.exit(f"walkthrough: {name} has {size} bytes; expected fewer than 150,000")
        self.parts.append(f"![{what}](images/{name})")

    def write(self):
        PAGE.write_text("\n\n".join(self.parts) + "\n")


def screenshot(browser, path, name, wait_for, height=820):
    page = browser.new_page(viewport={"width": 1180, "height": height}, reduced_motion="reduce")
    page.goto(URL + path)
    page.get_by_text(wait_for).first.wait_for(timeout=30_000)
    page.wait_for_timeout(1500)  # curves are drawn when their points have come
    page.screenshot(path=IMAGES / name)
    page.close()


def walk(page, browser, folder):
    page.say("""# A walk through one run

The digits smoke pipeline, from an empty folder to pictures: a detector, a teacher, its noise-image pairs, two distillations, their
evaluations and an export. It is made to be short: a teacher after a minute draws shapes, not digits yet (`./demo.sh` takes the same way
with a pipeline that learns them). This page is made by `tools/walkthrough.py`, which runs what stands here; `operations.md` explains it.

## A coordinator

In one terminal; it stays in the foreground, and jobs may name files beneath the folder where it was started:""")
    up = Terminal("onestep up", folder)
    up.wait_until("listening on")
    page.show("onestep up", up.screen.text())
    page.say("In another one:")
    plan = run("onestep jobs", folder)
    page.show("onestep jobs", plan)

    page.say("## A pipeline\n\nOne file names all jobs, and which come after which. On a terminal each has a line that moves. After a moment:")
    command = "onestep submit configs/digits/smoke/pipeline.json --follow"
    follow = Terminal(command, folder)
    follow.wait_until(r"teacher +\[#{6,}")
    page.show(command, follow.screen.text())
    page.say("""Jobs start in the order of their numbers, as soon as there are slots: one for each rank. Ctrl-C would end
the watching alone; the jobs go on. At the same moment <http://127.0.0.1:8080/> shows""")
    screenshot(browser, "/", "walkthrough-jobs.png", "live")
    page.picture("walkthrough-jobs.png", "the dashboard's list while the teacher trains")
    follow.wait_until(r"distill +\[#+-*\]  distill")
    page.say("Later the distillation runs. Each of its checkpoints is judged by an evaluation of its own beside it, on the same noise:")
    screenshot(browser, "/#/jobs/distill", "walkthrough-distill.png", "Losses", height=1100)
    page.picture("walkthrough-distill.png", "a distillation on the dashboard: losses, health, the same noise through every checkpoint")
    if follow.finish() != 0:
        sys.exit(f"walkthrough: the pipeline did not succeed:\n{follow.screen.text()}")
    page.say("And at the end, with the digest of what each job made; the same digests come on any number of ranks:")
    page.show(command, follow.screen.text())

    page.say("## What became of it")
    page.show("onestep show distill", run("onestep show distill", folder))
    page.say("The checkpoints' evaluations are jobs too. Where newer checkpoints came before one was judged, the older one was skipped:")
    page.show("onestep jobs | grep eval-", run("onestep jobs | grep eval-", folder))
    page.show("onestep logs distill | tail -n 2", run("onestep logs distill | tail -n 2 | cut -c1-110", folder))
    screenshot(browser, "/#/jobs/distill", "walkthrough-done.png", "succeeded", height=1100)
    page.picture("walkthrough-done.png", "the finished distillation on the dashboard")

    page.say("## The generator\n\nThe best judged checkpoint becomes a folder of its own: weights in safetensors, a configuration, digests.")
    for command in ("onestep export distill --out exports/digits", "ls exports/digits", "onestep verify exports/digits",
                    "onestep sample --model exports/digits --count 32 --out grid.png"):
        page.show(command, run(command, folder))
    shutil.copy(folder / "grid.png", IMAGES / "walkthrough-grid.png")
    page.picture("walkthrough-grid.png", "32 samples in one step, after a minute of training")
    page.say("`sample` needs no coordinator. The same seed draws the same pictures again.")

    page.say("## The end\n\nCtrl-C in the first terminal stops the coordinator. Everything is in `onestep-data/`; `onestep up` on it goes on.")
    os.kill(up.pid, signal.SIGINT)
    up.finish(60)


def main():
    with tempfile.TemporaryDirectory(prefix="onestep-walk.") as name, sync_playwright() as playwright:
        folder = Path(name)
        for part in ("configs", "build"):  # what the pipeline names, beneath the folder where the coordinator starts
            (folder / part).mkdir()
        shutil.copytree(ROOT / "configs/digits", folder / "configs/digits")
        shutil.copytree(ROOT / "build/data", folder / "build/data")
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = Page(folder)
        walk(page, browser, folder)
        browser.close()
        page.write()
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
