"""Use the page as a person does, in a real browser, and take a screenshot of each step.

Run on demand, with playwright installed beside the project and Debian's Chromium:

    pristina serve --port 8080 &
    python tests/app/browser.py http://127.0.0.1:8080/ screenshots --axe axe.min.js

It ends with an error if a step fails, if the browser's console shows an error, if anything is asked
of another host, or if axe finds something serious.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from PIL import Image, ImageChops, ImageDraw, ImageStat
from playwright.sync_api import Browser, Page, expect, sync_playwright

DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000
EXAMPLES = Path(__file__).parents[2] / "src/pristina/app/examples"


class Visit:
    """One person in front of the page."""

    def __init__(self, browser: Browser, url: str, out: Path, name: str, size: dict[str, int]):
        context = browser.new_context(
            viewport=size, accept_downloads=True, has_touch=size is PHONE, permissions=[]
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.out, self.name, self.n = out, name, 0
        self.faults: list[str] = []
        host = urlsplit(url).netloc
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", lambda r: self._asked(r.url, host))
        self.page.on("websocket", lambda w: self._asked(w.url, host))
        self.page.goto(url)
        self.page.get_by_text("Drop a damaged photo").wait_for()

    def _console(self, message) -> None:
        # The browser itself reports the refusal of a bad file.
        if message.type in ("error", "warning") and "422" not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, url: str, host: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != host:
            self.faults.append(f"asked of another host: {url}")

    def shot(self, step: str) -> None:
        self.page.wait_for_timeout(700)
        self.n += 1
        path = self.out / f"{self.name}-{self.n:02d}-{step}.png"
        self.page.screenshot(path=path, full_page=True)

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, path: Path) -> None:
        self.page.locator("input[type=file]").first.set_input_files(path)

    def planned(self) -> None:
        self.page.get_by_text("This takes").wait_for()

    def restored(self) -> None:
        self.page.get_by_role("link", name="Download").wait_for()

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=option).first.click()

    def axe(self, script: str | None) -> None:
        if script is None:
            return
        self.page.evaluate(script)
        found = self.page.evaluate("axe.run()")["violations"]
        for one in found:
            if one["impact"] in ("serious", "critical"):
                where = one["nodes"][0]["html"][:160]
                self.faults.append(f"axe, {one['impact']}: {one['id']}: {one['help']}: {where}")


def photo(folder: Path) -> Path:
    """Write a JPEG photograph with EXIF data in it."""
    exif = Image.Exif()
    exif[0x010E] = "Aunt Ida, 1987"
    path = folder / "aunt ida & co.jpg"
    Image.open(EXAMPLES / "portrait.jpg").crop((40, 0, 300, 260)).save(path, quality=60, exif=exif)
    return path


def restore_one(visit: Visit, path: Path, script: str | None) -> None:
    page = visit.page
    visit.shot("start")
    visit.axe(script)
    visit.send(path)
    visit.planned()
    visit.shot("plan")
    visit.axe(script)
    visit.button("Restore").click()
    visit.restored()
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth)")
    visit.shot("restored")
    visit.axe(script)
    line = page.get_by_label("Line between before and after")
    line.fill("20")
    visit.shot("line-moved")
    visit.button("Larger").click()
    visit.button("Larger").click()
    visit.shot("enlarged")
    visit.button("Fit").click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").click()
    content = Path(waiting.value.path()).read_bytes()
    assert waiting.value.suggested_filename == "aunt ida & co-restored.jpg"
    got = Image.open(io.BytesIO(content))
    assert got.format == "JPEG" and got.getexif()[0x010E] == "Aunt Ida, 1987"
    page.get_by_text("What was found and changed").click()
    page.get_by_text("Do the same in a terminal").click()
    visit.shot("details")
    visit.axe(script)
    expect(page.get_by_text("pristina restore 'aunt ida & co.jpg'")).to_be_visible()


def stroke(visit: Visit, start: tuple[float, float], end: tuple[float, float], touch: bool) -> None:
    """Draw a line with the brush, between places in shares of the picture's width and height."""
    page = visit.page
    box = page.locator(".brush .stage").bounding_box()
    places = [
        (
            box["x"] + box["width"] * (start[0] + (end[0] - start[0]) * i / 8),
            box["y"] + box["height"] * (start[1] + (end[1] - start[1]) * i / 8),
        )
        for i in range(9)
    ]
    if not touch:
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places:
            page.mouse.move(*place)
        page.mouse.up()
        return
    session = page.context.new_cdp_session(page)
    for i, (x, y) in enumerate(places):
        kind = "touchMove" if i else "touchStart"
        event = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
        session.send("Input.dispatchTouchEvent", event)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def levels_of(visit: Visit, address: str) -> Image.Image:
    answer = visit.page.request.get(urljoin(visit.page.url, address))
    assert answer.ok, answer.text()
    return Image.open(io.BytesIO(answer.body())).convert("RGB")


def marks(visit: Visit, path: Path, script: str | None, *, touch: bool) -> None:
    """Mark what to fill in and what to leave, with pointer and keys, and restore it half."""
    page = visit.page
    visit.send(path)
    visit.planned()
    visit.button("Mark places with a brush").click()
    page.locator(".brush canvas").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.brush img').complete")
    page.get_by_label("Size", exact=True).fill("16")
    stroke(visit, (0.1, 0.3), (0.9, 0.3), touch)
    visit.button("Leave as it is").click()
    page.get_by_label("Size", exact=True).fill("40")
    stroke(visit, (0.2, 0.8), (0.6, 0.8), touch)
    visit.button("Larger").click()
    visit.button("Fill in").click()
    stroke(visit, (0.2, 0.2), (0.8, 0.6), touch)
    visit.shot("enlarged-brush")
    visit.button("Undo").click()
    visit.button("Fit").click()
    page.locator(".brush .stage").focus()
    page.get_by_label("Size", exact=True).fill("16")
    page.locator(".brush .stage").focus()
    page.wait_for_timeout(2000)  # What was painted so far has been sent by then.
    with page.expect_response(lambda answer: answer.url.endswith("/marks")):
        for key in (*["ArrowUp"] * 6, " ", *["ArrowRight"] * 4, " "):
            page.keyboard.press(key)
    expect(visit.button("Restore")).to_be_enabled(timeout=PATIENCE_MS)
    visit.planned()
    page.get_by_text("are filled in").wait_for()
    visit.shot("marked")
    visit.axe(script)
    for _ in range(40):  # A plan that comes meanwhile draws the slider anew.
        if page.get_by_text("50 %").count():
            break
        page.get_by_role("slider", name="Strength").locator("[tabindex]").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(100)
    expect(page.get_by_text("50 %")).to_be_visible()
    visit.button("Restore").click()
    visit.restored()
    page.get_by_text("What was found and changed").click()
    page.get_by_text("What was filled in").wait_for()
    page.get_by_text("Do the same in a terminal").click()
    code = page.locator("pre").first.inner_text()
    for words in ("--strength 0.5", "--mask 'aunt ida & co-mask.png'", "--protect "):
        assert words in code, code
    visit.shot("marked-restored")
    visit.axe(script)
    link = page.get_by_role("link", name="Download aunt ida & co-mask.png")
    mask = levels_of(visit, link.get_attribute("href")).getchannel(0)
    job = link.get_attribute("href").split("/")[2]
    result = levels_of(visit, f"/api/v1/jobs/{job}/result?format=png")
    before = Image.open(path).convert("RGB")
    assert mask.size == result.size == before.size
    width, height = mask.size
    change = ImageChops.difference(result, before)
    line = mask.crop((width // 5, round(0.3 * height), 4 * width // 5, round(0.3 * height) + 1))
    assert line.getextrema() == (255, 255), "the line is not in the mask"
    kept = (round(0.25 * width), round(0.78 * height), round(0.55 * width), round(0.82 * height))
    assert not change.crop(kept).getbbox(), "what was to be left as it is has changed"
    assert mask.crop(kept).getextrema() == (0, 0)
    assert ImageStat.Stat(change, mask).mean[0] > 2 * ImageStat.Stat(change).mean[0]


def scratches(visit: Visit, path: Path, script: str | None) -> None:
    """Let scratches be looked for, where the server has weights for it."""
    page = visit.page
    scratched = path.with_name("scratched.png")
    picture = Image.open(EXAMPLES / "portrait.jpg").convert("RGB")
    draw = ImageDraw.Draw(picture)
    for x in (90, 180, 270):
        draw.line((x, 20, x + 30, picture.height - 20), fill=(245, 245, 240), width=2)
    picture.save(scratched)
    visit.send(scratched)
    page.get_by_text("What we see").wait_for()
    switch = page.get_by_role("switch", name="Find scratches and dust by itself")
    if not switch.count():
        print("no weights that find scratches: that step is left out", flush=True)
        return
    switch.click()
    page.get_by_text("pixels of scratches").wait_for()
    page.get_by_role("switch", name="Freshen faded colours").click()
    page.get_by_text("Faded colours will be freshened").wait_for()
    visit.planned()
    visit.shot("scratches-planned")
    visit.button("Restore").click()
    visit.restored()
    page.get_by_text("Do the same in a terminal").click()
    expect(page.get_by_text("--scratches --levels")).to_be_visible()
    visit.shot("scratches-filled")
    visit.axe(script)


def stop_and_go_on(visit: Visit) -> None:
    page = visit.page
    visit.button("Restore it differently").click()
    page.get_by_text("More settings").click()
    visit.choose("Method", "diip:")
    visit.planned()
    visit.shot("settings")
    visit.button("Restore").click()
    page.get_by_text("Step 3 of at most").wait_for()
    visit.shot("running")
    visit.button("Stop and keep this").click()
    visit.restored()
    expect(page.get_by_text("You stopped it")).to_be_visible()
    visit.shot("stopped")
    visit.button("Go on from here").click()
    page.get_by_text("Step ").first.wait_for()
    visit.shot("going-on")
    visit.button("Stop and keep this").click()
    visit.restored()
    visit.shot("several-results")


def bad_files(visit: Visit, folder: Path) -> None:
    bad = folder / "letter.jpg"
    bad.write_bytes(b"Dear Ida, this is no picture.")
    visit.send(bad)
    visit.page.get_by_text("is not a picture that can be read").wait_for()
    visit.shot("bad-file")


def samples(visit: Visit) -> None:
    page = visit.page
    visit.button("Restore it differently").click()
    visit.choose("Method", "dreamclean:")
    page.get_by_label("Number of samples").fill("3")
    page.wait_for_timeout(1500)
    visit.planned()
    visit.button("Restore").click()
    visit.restored()
    page.get_by_text("What was found and changed").click()
    page.get_by_text("How much the samples differ").wait_for()
    visit.shot("samples")


def told_the_damage(visit: Visit, folder: Path, script: str | None) -> None:
    """Say what happened to a small face, and see the blur that was found, and other methods."""
    page = visit.page
    face = folder / "face.png"
    portrait = Image.open(EXAMPLES / "portrait.jpg").convert("RGB")
    portrait.crop((75, 5, 223, 153)).resize((64, 64)).save(face)
    visit.send(face)
    page.get_by_text("What we see").wait_for()
    page.get_by_text("More settings").click()
    visit.choose("Method", "bird:")
    visit.choose("Add a kind of damage", "kernel:")
    visit.choose("Add a kind of damage", "noise:")
    expect(page.get_by_label("What happened to it, if you know")).to_have_value(
        "kernel | noise:sigma=0.05"
    )
    page.get_by_label("noise: sigma").fill("0.02")
    expect(page.get_by_label("What happened to it, if you know")).to_have_value(
        "kernel | noise:sigma=0.02"
    )
    page.get_by_text("Settings of bird").click()
    page.get_by_label("Iterations", exact=True).fill("3")
    page.wait_for_timeout(1500)
    visit.planned()
    visit.shot("told")
    visit.axe(script)
    visit.button("Restore").click()
    visit.restored()
    page.get_by_text("What was found and changed").click()
    page.get_by_text("The blur that was found").wait_for()
    visit.shot("blur-found")
    page.get_by_label("Compare methods").click()
    for name in ("mmse", "dreamclean"):
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")
    visit.button("Restore with each of these").click()
    expect(page.locator(".version img")).to_have_count(3, timeout=PATIENCE_MS)
    for words in ("bird, faces: ", "mmse, faces: ", "dreamclean, faces: "):
        page.locator(".version").filter(has_text=words).wait_for()
    visit.shot("methods-side-by-side")
    visit.axe(script)


def keyboard_alone(visit: Visit) -> None:
    """Restore an example without a mouse."""
    page = visit.page

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            said = page.evaluate(
                "(document.activeElement.getAttribute('aria-label') ||"
                " document.activeElement.innerText || '').trim()"
            )
            if said.startswith(name):
                return
        raise AssertionError(f"no way to {name!r} by the Tab key")

    tab_to("Example: cat")
    page.keyboard.press("Enter")
    visit.planned()
    tab_to("Restore")
    page.keyboard.press("Enter")
    visit.restored()
    tab_to("Line between")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.get_by_label("Line between before and after").input_value() == "60"
    visit.shot("by-keyboard")


def several_pictures(visit: Visit, path: Path) -> None:
    """Send two pictures at once, restore both, move the line with the mouse, read the report."""
    page = visit.page
    page.locator("input[type=file]").first.set_input_files([path, EXAMPLES / "cat.jpg"])
    visit.planned()
    visit.button("Restore all 2").click()
    visit.restored()
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    moved = int(page.get_by_label("Line between before and after").input_value())
    assert 78 <= moved <= 82, moved
    visit.shot("several")
    page.locator(".thumb").nth(1).click()
    visit.restored()
    visit.shot("the-other")
    visit.button("Remove this photo").click()
    expect(page.locator(".thumb")).to_have_count(0)
    visit.button("Remove this photo").click()
    page.get_by_text("Drop a damaged photo").wait_for()
    report = page.get_by_role("tab", name="Benchmark")
    if report.count():
        report.click()
        page.frame_locator("iframe").get_by_role("heading").first.wait_for()
        visit.shot("report")


def two_at_once(one: Visit, other: Visit) -> None:
    """Let two people restore at the same time; none sees the picture of the other."""
    for visit, name in ((one, "cat"), (other, "portrait")):
        visit.button(f"Example: {name}").click()
    for visit in (one, other):
        visit.planned()
    for visit in (one, other):
        visit.button("Restore").click()
    for visit, name in ((one, "cat"), (other, "portrait")):
        visit.restored()
        visit.page.get_by_text("Do the same in a terminal").click()
        expect(visit.page.get_by_text(f"pristina restore {name}.jpg")).to_be_visible()
        visit.shot("two-at-once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    script = None if given.axe is None else given.axe.read_text()
    visits: list[Visit] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])

        def visit(name: str, size: dict[str, int] = DESKTOP) -> Visit:
            visits.append(Visit(browser, given.url, given.out, name, size))
            return visits[-1]

        folder = Path(temporary)
        path = photo(folder)
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            one = visit(name, size)
            restore_one(one, path, script)
            bad_files(one, folder)
            stop_and_go_on(one)
            one.axe(script)
            if size is DESKTOP:
                samples(one)
            marks(visit(f"{name}-marks", size), path, script, touch=size is PHONE)
            print(name, "done", flush=True)
        scratches(visit("scratches"), path, script)
        told_the_damage(visit("told"), folder, script)
        several_pictures(visit("several"), path)
        keyboard_alone(visit("keyboard"))
        two_at_once(visit("one"), visit("other", PHONE))
        browser.close()
    faults = [f"{v.name}: {fault}" for v in visits for fault in v.faults]
    print(json.dumps(faults, indent=1))
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
