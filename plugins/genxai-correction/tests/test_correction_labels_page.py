"""The page on which a person labels images: what is clicked is what is downloaded, and no code runs but its own."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from genxai_correction import label_page, labels_file
from PIL import Image

from genxai_core import Samples, draws
from genxai_core.errors import InputError

EVIL = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def samples(n=12, side=16, channels=3):
    return Samples(draws.uniform(0, range(n), (channels, side, side)) * 2 - 1, value_range=(-1.0, 1.0))


class Page(html.parser.HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for found, attrs in self.tags if found == tag]


# -- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_shown_as_it_is_under_its_number(channels):
    given = samples(5, channels=channels)
    page = Page(label_page.render(given, "five"))
    assert [a["data-index"] for a in page.all("button") if a.get("class") == "image"] == list("01234")
    for i, image in enumerate(page.all("img")):
        drawn = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))))
        exact = ((given.images[i] + 1) / 2 * 255).expand(3, 16, 16).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(drawn) - exact).max() <= 0.51
        assert (image["width"], image["height"]) == ("112", "112")  # seven times 16


def test_large_images_are_reduced_and_keep_their_shape():
    page = Page(label_page.render(Samples(torch.zeros(1, 3, 400, 800), value_range=(0.0, 1.0)), "wide"))
    (image,) = page.all("img")
    assert (image["width"], image["height"]) == ("384", "192")
    drawn = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert drawn.size == (384, 192)


def test_nothing_that_it_is_given_becomes_markup():
    raw = label_page.render(samples(2), EVIL)
    page, plain = Page(raw), Page(label_page.render(samples(2), "plain"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "alert(1)&lt;/script&gt;" in raw
    assert "{{ 7 * 7 }}" in raw
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "href")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))


def test_its_policy_allows_its_own_style_and_script_and_no_network():
    raw = label_page.render(samples(2), EVIL)
    hashes = [
        base64.b64encode(hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", raw, re.S)[1].encode()).digest()).decode()
        for tag in ("style", "script")
    ]
    (policy,) = [a["content"] for a in Page(raw).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        f"base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"url\(|@import|https?:", raw)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="there are no images to label"):
        label_page.render(samples()[:0], "none")


# -- in a browser -----------------------------------------------------------------------------------------------

browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed: nobody clicks on the page"
)


def until(found, process, log):
    """Return what a function finds as soon as it finds something."""
    ends = time.monotonic() + 120
    while not (result := found()):
        assert process.poll() is None, f"the browser ended: {log.read_text()[-2000:]}"
        assert time.monotonic() < ends, f"the page did not answer: {log.read_text()[-2000:]}"
        time.sleep(0.05)
    return result


@pytest.fixture
def browse(tmp_path):
    """Open a page in a browser, let a script act on it, and return what it said and the file that it downloaded."""

    def opened(page, driver, downloads=False):
        driver = f"const said = []; {driver}; console.log('SAID:' + btoa(JSON.stringify(said)) + ':');"
        allowed = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
        page = page.replace("script-src '", f"script-src 'sha256-{allowed}' '", 1)
        page = page.replace("</body>", f"<script>{driver}</script></body>")
        (tmp_path / "page.html").write_text(page)
        file, log, profile = tmp_path / "downloads" / "labels.csv", tmp_path / "log", tmp_path / "profile"
        file.parent.mkdir()
        (profile / "Default").mkdir(parents=True)
        wanted = {"download": {"default_directory": str(file.parent), "prompt_for_download": False}}
        (profile / "Default" / "Preferences").write_text(json.dumps(wanted))
        flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update"]
        flags += ["disable-background-networking", "disable-sync", f"user-data-dir={profile}", "window-size=600,700"]
        flags += ["remote-debugging-port=0", "enable-logging=stderr"]  # the port keeps it open
        command = [shutil.which("chromium"), *(f"--{flag}" for flag in flags), (tmp_path / "page.html").as_uri()]
        with log.open("w") as output:
            process = subprocess.Popen(command, stderr=output, stdout=output, start_new_session=True)
        try:
            found = until(lambda: re.search("SAID:(.*?):", log.read_text(errors="replace")), process, log)
            if downloads:
                until(file.exists, process, log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert "Content Security Policy" not in log.read_text(errors="replace")
        return json.loads(base64.b64decode(found[1])), file

    return opened


CLICK = "const click = (i) => document.querySelectorAll('#images .image')[i].click();"


@browser
def test_what_is_clicked_is_what_the_file_says(browse, tmp_path):
    driver = f"""{CLICK}
    click(3); click(7); document.querySelectorAll('#images img')[0].click(); click(7); click(11);
    said.push(labelsCsv(), count.textContent, images.map(i => i.getAttribute('aria-pressed')), saved)"""
    (text, counted, pressed, saved), _ = browse(label_page.render(samples(12), EVIL), driver)
    (tmp_path / "labels.csv").write_text(text)
    found = labels_file.read(tmp_path / "labels.csv", 12)
    assert found == {i: "artifact" if i in (0, 3, 11) else "normal" for i in range(12)}
    assert text == labels_file.text(found)
    assert counted == "3 artifact, 9 normal, of 12"
    assert [i for i, is_pressed in enumerate(pressed) if is_pressed == "true"] == [0, 3, 11]
    assert saved is False  # leaving the page would ask


@browser
def test_the_button_downloads_the_file(browse):
    driver = f"{CLICK} click(2); document.getElementById('download').click(); said.push(saved)"
    (saved,), file = browse(label_page.render(samples(4), "four"), driver, downloads=True)
    assert saved is True
    assert labels_file.read(file, 4) == {0: "normal", 1: "normal", 2: "artifact", 3: "normal"}


@browser
def test_keys_move_and_download(browse):
    """At this width there are four images in a row."""
    driver = """
    const press = (key, more) => document.dispatchEvent(
        new KeyboardEvent('keydown', {key: key, bubbles: true, cancelable: true, ...more}));
    const at = () => said.push(images.indexOf(document.activeElement));
    for (const key of ['Right', 'Right', 'Down', 'Left', 'Up', 'Up']) { press('Arrow' + key); at(); }
    document.activeElement.click();
    press('d', {ctrlKey: true}); said.push(saved); press('d'); said.push(saved)"""
    said, file = browse(label_page.render(samples(12), "keys"), driver, downloads=True)
    assert said == [0, 1, 5, 4, 0, 0, False, True]  # above the first row there is nothing to move to
    assert labels_file.read(file, 12)[0] == "artifact"


@browser
def test_marks_are_seen_and_nothing_sticks_out(tmp_path):
    page = label_page.render(samples(12), EVIL)
    marked = page.replace('data-index="5" aria-pressed="false"', 'data-index="5" aria-pressed="true"')
    shots = []
    for i, content in enumerate((page, marked)):
        (tmp_path / f"{i}.html").write_text(content)
        flags = ["headless", "no-sandbox", "disable-gpu", "hide-scrollbars", f"user-data-dir={tmp_path / 'profile'}"]
        flags += ["window-size=520,900", f"screenshot={tmp_path / f'{i}.png'}"]
        command = [shutil.which("chromium"), *(f"--{flag}" for flag in flags), (tmp_path / f"{i}.html").as_uri()]
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        shots.append(np.asarray(Image.open(tmp_path / f"{i}.png").convert("RGB")).astype(int))
    red = [int((shot == (0xCF, 0x22, 0x2E)).all(-1).sum()) for shot in shots]
    assert red[1] - red[0] > 4 * 100 * 3  # a frame of some 120 pixels, four wide
    assert (shots[0][:, -8:] >= 0xD0).all()  # the header's line reaches the edge, images do not
