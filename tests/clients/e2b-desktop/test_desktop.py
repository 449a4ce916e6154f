"""E2B's desktop SDK, unmodified, against a Skerry server, and a real browser that shows and drives the stream."""

import io
import os
import re
import time

import pytest
from e2b_desktop import Sandbox
from PIL import Image
from playwright.sync_api import sync_playwright


def eventually(look, seconds=60):
    """The first true answer; an exception counts as none until the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := look():
                return answer
            problem = None
        except Exception as error:
            problem = error
        assert time.monotonic() < deadline, f"not in {seconds} s: {problem!r}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def desktop():
    desktop = Sandbox.create(timeout=900)
    yield desktop
    desktop.kill()


@pytest.fixture(scope="module")
def terminal(desktop):
    """The id of a terminal's window, which has the keyboard."""
    desktop.launch("xfce4-terminal")
    window = eventually(lambda: desktop.get_application_windows("xfce4-terminal")[-1])
    eventually(lambda: desktop.get_current_window_id() == window)
    return window


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-proxy-server"])
        yield browser
        browser.close()


def shown(page, address):
    """Open the stream's page; its canvas. Chromium breaks off what it loads when an interface of this machine comes or
    goes, as those of sandboxes do, so it may take more than one attempt."""

    def look():
        page.goto(address)
        page.locator("canvas").first.wait_for(timeout=10_000)
        return page.locator("canvas").first

    return eventually(look, 90)


def picture(desktop):
    return Image.open(io.BytesIO(desktop.screenshot()))


def test_the_screen(desktop):
    assert desktop.get_screen_size() == (1024, 768)
    assert picture(desktop).size == (1024, 768)
    eventually(lambda: len(picture(desktop).convert("RGB").getcolors(1 << 20)) > 100)
    assert b"".join(desktop.screenshot("stream")).startswith(b"\x89PNG")


def test_the_mouse(desktop):
    desktop.move_mouse(300, 200)
    assert desktop.get_cursor_position() == (300, 200)
    desktop.drag((300, 200), (500, 400))
    assert desktop.get_cursor_position() == (500, 400)
    before = picture(desktop).crop((600, 300, 1000, 700)).tobytes()
    desktop.right_click(620, 320)
    eventually(lambda: picture(desktop).crop((600, 300, 1000, 700)).tobytes() != before)  # the desktop's menu
    desktop.press("esc")
    desktop.left_click(600, 500)
    desktop.double_click()
    desktop.middle_click()
    desktop.scroll("up", 2)
    desktop.mouse_press("right")
    desktop.mouse_release("right")
    desktop.press("esc")
    desktop.wait(100)


def test_the_keyboard(desktop, terminal):
    desktop.write("echo 'ä-$HOME; it works' > typed.txt && pwd >> typed.txt")
    desktop.press("enter")
    assert eventually(lambda: desktop.files.read("typed.txt").count("\n") == 2)
    assert desktop.files.read("typed.txt") == "ä-$HOME; it works\n/home/user\n"
    desktop.write("sleep 1000")
    desktop.press(["ctrl", "c"])
    assert desktop.get_window_title(terminal)


def test_the_stream_in_a_browser(desktop, terminal, browser):
    desktop.stream.start()
    with pytest.raises(RuntimeError, match="already running"):
        desktop.stream.start()
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1024, "height": 768})
    page = context.new_page()
    canvas = shown(page, desktop.stream.get_url(resize="off"))
    eventually(lambda: canvas.evaluate("canvas => canvas.width") == 1024)
    eventually(lambda: canvas.evaluate(COLOURS) > 100)

    at = canvas.bounding_box()
    page.mouse.move(at["x"] + 200, at["y"] + 300)
    page.mouse.move(at["x"] + 222, at["y"] + 333)
    eventually(lambda: desktop.get_cursor_position() == (222, 333))

    places = desktop.commands.run(f"xdotool getwindowgeometry {terminal}").stdout
    x, y = map(int, re.search(r"Position: (\d+),(\d+)", places).groups())
    desktop.left_click(1000, 700)  # the keyboard belongs to the desktop now, until the click in the browser
    page.mouse.click(at["x"] + x + 100, at["y"] + y + 100)
    eventually(lambda: desktop.get_current_window_id() == terminal)
    page.keyboard.type("echo from the browser > browser.txt\n", delay=30)
    assert eventually(lambda: desktop.files.read("browser.txt")) == "from the browser\n"
    context.close()
    desktop.stream.stop()


COLOURS = """canvas => new Set(new Uint32Array(
    canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""


def asks_for_a_password(page, address):
    page.goto(address)
    page.locator("#noVNC_password_input").wait_for(state="visible", timeout=10_000)
    return True


def test_a_stream_of_one_window_with_a_password(desktop, terminal, browser):
    eventually(lambda: desktop.commands.run("! pgrep -x x11vnc").exit_code == 0)
    desktop.stream.start(port=6090, vnc_port=5910, require_auth=True, window_id=terminal)
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    eventually(lambda: asks_for_a_password(page, desktop.stream.get_url()), 90)
    page = context.new_page()
    canvas = shown(page, desktop.stream.get_url(auth_key=desktop.stream.get_auth_key(), view_only=True))
    eventually(lambda: canvas.evaluate(COLOURS) > 5)
    assert canvas.evaluate("canvas => canvas.width") < 1024, "the window only"
    context.close()
    desktop.stream.stop()


def test_files_and_programs_open(desktop):
    desktop.files.write("page.html", "<title>opened by its name</title><h1>hello</h1>")
    desktop.open("/home/user/page.html")
    eventually(lambda: [
        window for window in desktop.get_application_windows("chromium")
        if "opened by its name" in desktop.get_window_title(window)
    ])  # fmt: skip
    desktop.commands.run("pkill chromium")
    desktop.launch("google-chrome", "file:///home/user/page.html")
    eventually(lambda: [
        window for window in desktop.get_application_windows("google-chrome")
        if "opened by its name" in desktop.get_window_title(window)
    ])  # fmt: skip
    desktop.files.write("notes.txt", "notes")
    desktop.open("notes.txt")
    eventually(lambda: desktop.get_application_windows("mousepad")[-1])


def test_another_size_of_screen():
    desktop = Sandbox.create(resolution=(1280, 720), dpi=120, display=":3", timeout=120)
    try:
        assert desktop.get_screen_size() == (1280, 720)
        assert picture(desktop).size == (1280, 720)
    finally:
        desktop.kill()
