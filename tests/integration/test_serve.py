"""`omg serve` as people use it: a process of its own, gradio_client, and a real browser that clicks."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from omg_cli.main import run
from omgvision.hub import has_bundled_chat

pytest.importorskip("gradio", reason="omg serve needs the extra serve")
pytest.importorskip("uvicorn", reason="omg serve needs the extra serve")

PATIENCE = 240
REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a server with the bundled weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "omg_cli", "serve", "--port", str(port), "--device", "cpu"]
    with log.open("w") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE):
            assert server.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture
def picture() -> Path:
    return REPOSITORY / "examples" / "images" / "cat.jpg"


def test_gradio_client(address, picture):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    overlay, summary, table, files = client.predict(
        handle_file(str(picture)), "panoptic", "", 0, "", api_name="/segment"
    )
    assert Path(overlay).stat().st_size > 1000
    assert "segment" in summary
    assert table["headers"][:2] == ["id", "label"]
    assert len(table["data"]) == len(json.loads(_named(files, "result.json").read_text())["annotations"])
    _, _, table, _ = client.predict(
        handle_file(str(picture)), "what I point at", "", 0, "240,90\n10,0,370,299", api_name="/segment"
    )
    assert len(table["data"]) == 2
    with pytest.raises(Exception, match="outside of the image"):
        client.predict(handle_file(str(picture)), "what I point at", "", 0, "9000,1", api_name="/segment")


def _named(files: list[str], name: str) -> Path:
    return next(Path(file) for file in files if Path(file).name == name)


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", str(REPOSITORY / "pyproject.toml"), "../etc/passwd"])
def test_no_file_of_this_machine_is_served(address, path):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=60)
    assert refused.value.code in (403, 404)


def test_clicks_in_a_browser(address, picture, tmp_path):
    """Upload, segment, point at the cat; the picture of the page is kept in OMG_SCREENSHOTS or a temporary folder."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="clicking needs selenium")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("clicking needs Chromium and its driver (apt-get install chromium chromium-driver)")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1300"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    folder = Path(os.environ.get("OMG_SCREENSHOTS") or tmp_path)
    try:
        chrome.set_page_load_timeout(PATIENCE)
        chrome.get(address)
        wait = WebDriverWait(chrome, PATIENCE)

        def one(selector: str):
            return wait.until(lambda _: chrome.find_element(By.CSS_SELECTOR, selector))

        def summary() -> str:
            return one("#summary").text

        one("#picture input[type=file]").send_keys(str(picture))
        shown = one("#picture img")
        wait.until(lambda _: shown.get_property("naturalWidth"))
        one("#run").click()
        wait.until(lambda _: "segments in" in summary())
        one("#overlay img")
        chrome.save_screenshot(str(folder / "segment.png"))
        many = summary()

        webdriver.ActionChains(chrome).move_to_element(one("#picture img")).click().perform()
        wait.until(lambda _: summary() != many and "1 segment in" in summary())
        assert one("#pointed textarea").get_property("value")
        chrome.save_screenshot(str(folder / "clicked.png"))

        chrome.find_element(By.XPATH, "//button[@role='tab'][contains(., 'Chat')]").click()
        if has_bundled_chat():
            wait.until(lambda _: one("#question textarea"))
        else:
            wait.until(lambda _: "--chat-model" in one("#chat-missing").text)
        chrome.save_screenshot(str(folder / "chat.png"))
    finally:
        chrome.quit()


def test_what_is_missing_is_said(capsys, tmp_path):
    assert run(["serve", "--chat-model", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    assert run(["serve", "--model", str(tmp_path / "none")]) == 2
    assert "there is no model" in capsys.readouterr().err
