"""Runs in a sandbox of `web-scraping`: a page that a script fills in, served and read inside."""

import http.server
import os
import subprocess
import threading

import httpx
import requests
import trafilatura
from bs4 import BeautifulSoup
from parsel import Selector
from playwright.sync_api import sync_playwright

PAGE = b"""<!doctype html><title>shop</title><article><p>The harbour shop sells ropes and lamps to whoever asks.</p>
</article><ul id="goods"></ul><input id="name"><button onclick="document.title = document.getElementById('name').value">
go</button><script>for (const name of ['rope', 'lamp'])
document.getElementById('goods').innerHTML += `<li class="item">${name}</li>`</script>"""


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"

assert os.getuid() != 0, "an ordinary user can do all this"
plain = requests.get(url, timeout=10).text
assert BeautifulSoup(plain, "lxml").title.text == Selector(httpx.get(url).text).css("title::text").get() == "shop"
assert BeautifulSoup(plain, "html5lib").select("li") == []
assert "ropes and lamps" in trafilatura.extract(plain)

with sync_playwright() as playwright:
    for options in {}, {"channel": "chromium"}:
        browser = playwright.chromium.launch(**options)
        page = browser.new_page()
        page.goto(url)
        assert page.locator("li.item").all_inner_texts() == ["rope", "lamp"]
        page.fill("#name", "bought")
        page.click("button")
        assert page.title() == "bought"
        assert page.screenshot(full_page=True).startswith(b"\x89PNG")
        assert page.pdf().startswith(b"%PDF")
        browser.close()

dumped = subprocess.run(["chromium", "--headless", "--dump-dom", url], capture_output=True, text=True, timeout=60)
assert "rope</li>" in dumped.stdout, dumped
print("proven")
