"""The dashboard in headless Chromium, on a coordinator that runs the digits smoke pipeline.

Environment: ONESTEP_PROGRAMS, the folder with the programs. ONESTEP_SCREENSHOTS, optional: a folder for pictures of what is
tested. Needs playwright and axe-playwright-python (tools/setup_browser.sh) and Debian's chromium.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ["ONESTEP_PROGRAMS"])
SCREENSHOTS = os.environ.get("ONESTEP_SCREENSHOTS")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


class Coordinator:
    """One on a folder of its own; started again it keeps its port, so that pages find it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.listen = "127.0.0.1:0"
        self.start()

    def start(self):
        with open(self.folder / "coordinator.log", "w") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "onestep-coordinator", "--data", self.folder / "data", "--listen", self.listen, "--root", "/"],
                stdout=log, stderr=log, env={**os.environ, "OMPI_MCA_mpi_yield_when_idle": "1"})
        deadline = time.monotonic() + 60
        while True:
            found = re.search(r"listening on (http://([^ ,]+)),", (self.folder / "coordinator.log").read_text())
            if found:
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "coordinator.log").read_text())
            time.sleep(0.05)
        self.url, self.listen = found[1], found[2]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        for job in self.get("/api/v1/jobs?limit=1000")["items"]:
            if job["state"] in ("starting", "running", "stopping"):
                self.post(f"/api/v1/jobs/{job['id']}/cancel")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(
                job["state"] in ("starting", "running", "stopping") for job in self.get("/api/v1/jobs?limit=1000")["items"]):
            time.sleep(0.2)
        self.process.terminate()
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def post(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method="POST",
                                         headers={"Content-Type": "application/json"} if data else {})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def wait_for(self, job, states, limit=600):
        deadline = time.monotonic() + limit
        while True:
            found = self.get(f"/api/v1/jobs/{job}")
            if found["state"] in states:
                return found
            if time.monotonic() > deadline or found["state"] in ("failed", "blocked"):
                raise RuntimeError(f"{job}: {found['state']}: {found['reason']}; expected {states}")
            time.sleep(0.2)


class Dashboard(unittest.TestCase):
    """In the order of their names: the pipeline runs while the first look at it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="onestep-web-")
        cls.coordinator = Coordinator(cls.folder.name)
        cls.playwright = sync_playwright().start()
        cls.browser = cls.playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        cls.coordinator.stop()
        cls.folder.cleanup()

    def setUp(self):
        self.complaints = []
        self.requests = []

    def open(self, path="/", theme="light", size=None):
        context = self.browser.new_context(color_scheme=theme, viewport=size or DESKTOP, reduced_motion="reduce")
        self.addCleanup(context.close)
        page = context.new_page()
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI))")
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.coordinator.url + path)
        return page

    def picture(self, page, name, full=False):
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=full)

    def expect_no_complaints(self):
        self.assertEqual(self.complaints, [])
        outside = [url for url in self.requests if not url.startswith((self.coordinator.url, "blob:"))]
        self.assertEqual(outside, [], "requests to somewhere else")

    def expect_accessible(self, page, what):
        results = Axe().run(page)
        self.assertEqual(results.violations_count, 0, f"{what}: {results.generate_report()}")

    def expect_fits(self, page, what):
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.assertLessEqual(over, 0, f"{what}: wider than the screen by {over} pixels")

    # ---- while it runs ----

    def test_01_an_empty_coordinator_says_how_to_begin(self):
        page = self.open()
        expect(page.locator("main")).to_contain_text("onestep submit")
        expect(page.locator("#connection")).to_contain_text("live")
        self.expect_accessible(page, "empty")
        self.expect_no_complaints()

    def test_02_a_pipeline_appears_and_moves_without_a_reload(self):
        page = self.open()
        expect(page.locator("main")).to_contain_text("Nothing has been submitted")
        base = ROOT / "configs/digits/smoke"
        spec = json.loads((base / "pipeline.json").read_text())
        self.coordinator.post("/api/v1/jobs", {"spec": spec, "base": str(base)})
        row = page.locator("tr", has=page.get_by_role("link", name="teacher", exact=True))
        expect(row).to_be_visible(timeout=5000)
        expect(row).to_contain_text("running", timeout=120_000)
        expect(row.get_by_role("progressbar")).to_be_visible(timeout=60_000)
        first = page.locator("tr", has=page.get_by_role("link", name="detector", exact=True))
        expect(first).to_contain_text("succeeded", timeout=60_000)
        self.picture(page, "jobs-running")
        self.expect_no_complaints()

    def test_03_a_running_job_shows_its_curves_as_they_grow(self):
        self.coordinator.wait_for("distill", ["running", "succeeded"])
        page = self.open("/#/jobs/distill")
        expect(page.get_by_role("heading", name="distill", level=1)).to_be_visible()
        expect(page.locator(".badge").first).to_contain_text("succeeded", timeout=300_000)
        expect(page.get_by_role("heading", name="Losses")).to_be_visible()
        expect(page.locator(".log")).to_contain_text("checkpoint", timeout=10_000)
        # Every report has come, by events or with the first look.
        metrics = self.coordinator.get("/api/v1/jobs/distill/metrics?keys=loss_fake")["series"][0]["points"]
        page.get_by_text("In numbers").first.click()
        expect(page.locator(".numbers").first).to_contain_text(f"{metrics[-1]['images']:,}")
        self.expect_no_complaints()

    # ---- when it is done ----

    def test_10_no_accessibility_violation_in_any_view_and_theme(self):
        self.coordinator.wait_for("export", ["succeeded"])
        jobs = {job["name"]: job["id"] for job in self.coordinator.get("/api/v1/jobs?limit=1000")["items"]}
        views = {"jobs": "/", "job": f"/#/jobs/{jobs['distill']}", "pairs": f"/#/jobs/{jobs['pairs']}",
                 "compare": f"/#/compare/{jobs['distill']}/{jobs['regression_only']}"}
        for theme in ("light", "dark"):
            for name, path in views.items():
                page = self.open(path, theme=theme)
                expect(page.get_by_role("heading", level=1)).to_be_visible()
                expect(page.locator("#connection")).to_be_visible()
                page.wait_for_timeout(400)  # pictures and curves
                self.expect_accessible(page, f"{name}, {theme}")
                self.expect_fits(page, f"{name}, {theme}")
                self.picture(page, f"{name}-{theme}", full=True)
        self.expect_no_complaints()

    def test_11_a_phone_shows_everything_without_scrolling_sideways(self):
        for name, path in {"jobs": "/", "job": "/#/jobs/distill", "compare": "/#/compare/distill/regression_only"}.items():
            page = self.open(path, theme="dark", size=PHONE)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.wait_for_timeout(400)
            self.expect_fits(page, name)
            self.expect_accessible(page, f"{name} on a phone")
            self.picture(page, f"{name}-phone", full=True)
        self.expect_no_complaints()

    def test_12_the_slider_leads_through_the_checkpoints_by_keyboard(self):
        samples = self.coordinator.get("/api/v1/jobs/distill/samples")["items"]
        self.assertGreaterEqual(len(samples), 2)
        page = self.open("/#/jobs/distill")
        slider = page.get_by_role("slider")
        picture = page.locator("img.sample")
        expect(slider).to_have_attribute("aria-valuetext", re.compile(f"iteration {samples[-1]['iteration']}"))
        expect(picture).to_have_attribute("src", re.compile("^blob:"))
        last = picture.get_attribute("src")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuetext", re.compile(f"iteration {samples[-2]['iteration']}"))
        expect(picture).not_to_have_attribute("src", last)
        page.keyboard.press("Home")
        expect(page.locator(".sample-caption")).to_contain_text(f"iteration {samples[0]['iteration']}")
        self.assertGreater(picture.evaluate("image => image.naturalWidth"), 100)

    def test_13_the_page_can_be_used_without_a_mouse(self):
        page = self.open()
        expect(page.get_by_role("link", name="distill", exact=True)).to_be_visible()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "distill":
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="distill", level=1)).to_be_visible()
        key = page.locator("button.key").first
        expect(key).to_have_attribute("aria-pressed", "true")
        key.focus()
        page.keyboard.press("Space")
        expect(page.locator("button.key").first).to_have_attribute("aria-pressed", "false")
        self.assertTrue(page.evaluate("document.activeElement.classList.contains('key')"), "the focus has stayed")

    def test_14_two_runs_side_by_side(self):
        page = self.open("/#/jobs/distill")
        page.get_by_label("Beside").select_option(index=1)
        expect(page.get_by_role("heading", name="Two runs side by side")).to_be_visible()
        expect(page.locator("main")).to_contain_text("dmd.iterations")
        self.expect_no_complaints()

    def test_15_shards_and_checkpoints_are_listed(self):
        page = self.open("/#/jobs/pairs")
        expect(page.locator(".shard.done")).to_have_count(2)
        page = self.open("/#/jobs/distill")
        digest = self.coordinator.get("/api/v1/jobs/distill/checkpoints")["items"][-1]["digest"]
        expect(page.locator(".digest").first).to_have_text(digest)
        expect(page.locator("main")).to_contain_text("★ best")

    def test_16_the_theme_stays(self):
        page = self.open(theme="light")
        button = page.get_by_role("button", name="Theme")
        button.click()
        button.click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")

    def test_17_alarms_are_told_with_their_reason(self):
        spec = self.coordinator.get("/api/v1/jobs/distill/spec")
        del spec["output"], spec["evaluation"]
        spec.update(name="untrained", report_every=2)
        spec["dmd"]["fake"]["learning_rate"] = 0.0
        jobs = self.open()
        job = self.coordinator.post("/api/v1/jobs", {"spec": spec, "base": "/"})["jobs"][0]["id"]
        page = self.open(f"/#/jobs/{job}")
        alarm = page.locator(".alarm").first
        expect(alarm).to_contain_text("zero gradient", timeout=120_000)
        expect(alarm).to_contain_text("exactly 0")
        expect(alarm).to_contain_text("dmd.fake.learning_rate")
        row = jobs.locator("tr", has=jobs.get_by_role("link", name="untrained", exact=True))
        expect(row).to_contain_text("⚠ 1 alarm")
        self.coordinator.wait_for("untrained", ["succeeded"])
        page.reload()
        expect(page.locator(".alarm")).to_have_count(1)
        page.wait_for_timeout(400)
        self.expect_accessible(page, "a job with an alarm")
        self.picture(page, "alarm", full=True)
        self.expect_no_complaints()

    # ---- a run that is disturbed ----

    def test_20_buttons_and_a_killed_coordinator(self):
        base = ROOT / "configs/digits/smoke"
        pipeline = json.loads((base / "pipeline.json").read_text())
        spec = next(job for job in pipeline["jobs"] if job["name"] == "teacher")
        spec.update(name="long", images=1_280_000, checkpoint={"every_iterations": 50}, report_every=5)
        submitted = self.coordinator.post("/api/v1/jobs", {"spec": spec, "base": str(base)})
        job = submitted["jobs"][0]["id"]
        page = self.open(f"/#/jobs/{job}")
        badge = page.locator(".state-line .badge")
        expect(badge).to_contain_text("running", timeout=60_000)
        expect(page.locator("[aria-label='Table: Ranks']")).to_contain_text("s ago", timeout=20_000)
        page.get_by_role("button", name="Checkpoint now").click()
        expect(page.locator("#toasts")).to_contain_text("asked for a checkpoint")
        self.picture(page, "job-running", full=True)

        self.coordinator.kill()
        expect(page.locator("#connection")).to_contain_text("coordinator away", timeout=10_000)
        self.coordinator.start()
        expect(page.locator("#connection")).to_contain_text("live", timeout=20_000)
        images = page.locator(".facts dd").first.inner_text()
        expect(page.locator(".facts dd").first).not_to_have_text(images, timeout=30_000)

        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Really cancel?").click()
        expect(badge).to_contain_text("cancelled", timeout=60_000)
        page.get_by_role("button", name="Resume").click()
        expect(badge).to_contain_text("running", timeout=60_000)
        # The log has every byte once, through all of it.
        self.coordinator.post(f"/api/v1/jobs/{job}/cancel")
        expect(badge).to_contain_text("cancelled", timeout=60_000)
        attempts = len(self.coordinator.get(f"/api/v1/jobs/{job}")["attempts"])
        self.assertEqual(attempts, 2)
        logs = self.coordinator.folder / "data/jobs" / job / "logs"
        whole = "".join((logs / f"a{number}-rank-0.log").read_text() for number in (1, 2))
        page.wait_for_timeout(1000)
        shown = page.locator(".log").evaluate("log => log.textContent")
        self.assertTrue(whole.endswith(shown), f"{whole[-2000:]}\n=== shown:\n{shown[-2000:]}")
        failed = [text for text in self.complaints if "Failed to load resource" not in text and "ERR_" not in text]
        self.assertEqual(failed, [])


if __name__ == "__main__":
    unittest.main(verbosity=2, argv=[sys.argv[0], *sys.argv[1:]])
