"""A headless Chromium, driven through chromedriver by the W3C's WebDriver protocol.

Debian has both: `apt-get install chromium chromium-driver`.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.network import unused_port, wait_until_open

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference
DESKTOP, PHONE = (1200, 800), (390, 844)


class Browser:
    """One window."""

    def __init__(self, port: int, size: tuple[int, int], dark: bool) -> None:
        self._url = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--hide-scrollbars", "--window-size={},{}".format(*size)]
        arguments += ["--no-sandbox"] * (os.geteuid() == 0)
        chrome = {"args": arguments, "binary": shutil.which("chromium")}
        made = self._call("POST", "", capabilities={"alwaysMatch": {"goog:chromeOptions": chrome}})
        self._url += f"/{made['sessionId']}"
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        width, height = size  # a window is never narrower than 500
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def _call(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self._url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)["value"]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, url: str) -> None:
        self._call("POST", "/url", url=url)

    def script(self, text: str) -> Any:
        """What `return` gives in the page."""
        return self._call("POST", "/execute/sync", script=text, args=[])

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """`\\ue007` is Enter."""
        self._call("POST", f"/element/{self._find(selector)}/value", text=text)

    def text(self, selector: str) -> str:
        return str(self._call("GET", f"/element/{self._find(selector)}/text"))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def overflows(self) -> bool:
        """Whether something is wider than the window."""
        return bool(
            self.script(
                "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
            )
        )

    def wait_for(self, true: Callable[[], Any], seconds: float = 300) -> Any:
        """What `true()` gives once that is true."""
        until = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < until, f"still not so after {seconds} s: {true}"
            time.sleep(0.02)
        return found

    def _find(self, selector: str) -> str:
        found = self._call("POST", "/element", using="css selector", value=selector)
        return str(found[ELEMENT])

    def close(self) -> None:
        self._call("DELETE", "")


@contextmanager
def browser(size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Iterator[Browser]:
    """A window of its own. Skips the test where there is no Chromium."""
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium and chromedriver are not installed")
    port = unused_port()
    process = subprocess.Popen([driver, f"--port={port}", "--log-level=OFF"])
    try:
        wait_until_open(port)
        window = Browser(port, size, dark)
        yield window
        window.close()
    finally:
        process.terminate()
        process.wait()
