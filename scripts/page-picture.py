#!/usr/bin/env python3
"""Looks at a page for some real seconds through a browser's debugging pipe, and writes what it shows: for page-picture.sh."""

import argparse
import base64
import json
import subprocess
import tempfile
import time


class Browser:
    """A browser without a window that reads from descriptor 3 and writes to 4."""

    def __init__(self, profile):
        command = ["chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        shell = ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1', *command]
        self.process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.asked = 0
        self.session = None
        target = self.ask("Target.getTargets")["targetInfos"][0]["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method, **parameters):
        self.asked += 1
        message = {"id": self.asked, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            answer = json.loads(self.message())
            if answer.get("id") == self.asked:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]

    def message(self):
        parts = bytearray()
        while (byte := self.process.stdout.read(1)) != b"\0":
            if not byte:
                raise SystemExit("the browser has ended")
            parts += byte
        return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("output")
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="to look before the picture is taken")
    parser.add_argument("--dark", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            browser.ask("Emulation.setDeviceMetricsOverride", width=asked.width, height=asked.height, deviceScaleFactor=1,
                        mobile=asked.width < 500)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if asked.dark else "light"}
            browser.ask("Emulation.setEmulatedMedia", features=[scheme])
            browser.ask("Page.navigate", url=asked.url)
            time.sleep(asked.seconds)
            picture = browser.ask("Page.captureScreenshot", format="png")["data"]
        finally:
            browser.process.kill()
            browser.process.wait()
    with open(asked.output, "wb") as file:
        file.write(base64.b64decode(picture))


main()
