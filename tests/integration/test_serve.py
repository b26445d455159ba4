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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omg_cli.main import run
from omgvision.hub import has_bundled_chat
from tests.llava_folders import save_llava

pytest.importorskip("gradio", reason="omg serve needs the extra serve")
pytest.importorskip("uvicorn", reason="omg serve needs the extra serve")

PATIENCE = 240
REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def server(folder: Path, *arguments: str) -> Iterator[str]:
    """Its address; `omg serve` with these arguments, in a process of its own that logs into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = [sys.executable, "-m", "omg_cli", "serve", "--port", str(port), "--device", "cpu", *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a server with the bundled weights."""
    with server(tmp_path_factory.mktemp("serve")) as url:
        yield url


@pytest.fixture
def chat_address(request, tmp_path):
    """Of a server that chats: with new weights of a very small model, or the bundled ones."""
    if request.param == "bundled":
        if not has_bundled_chat():
            pytest.skip("this installation has no bundled chat model")
        yield request.getfixturevalue("address")
    else:
        with server(tmp_path, "--chat-model", str(save_llava(tmp_path / "llava"))) as url:
            yield url


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


class Browser:
    """Chromium, patient. Its screenshots are kept in OMG_SCREENSHOTS or a temporary folder."""

    def __init__(self, chrome: Any, folder: Path) -> None:
        self.chrome, self.folder = chrome, folder

    def wait(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives as soon as it gives something."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.chrome, PATIENCE).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return self.chrome.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def texts(self, selector: str) -> list[str]:
        """All at once: elements may be replaced between two questions about them."""
        script = "return [...document.querySelectorAll(arguments[0])].map(found => found.textContent.trim())"
        return self.chrome.execute_script(script, selector)

    def upload(self, selector: str, picture: Path) -> None:
        self.one(f"{selector} input[type=file]").send_keys(str(picture))
        shown = self.one(f"{selector} img")
        self.wait(lambda: shown.get_property("naturalWidth"))

    def click_on(self, selector: str) -> None:
        """In the middle."""
        from selenium.webdriver import ActionChains

        ActionChains(self.chrome).move_to_element(self.one(selector)).click().perform()

    def open_tab(self, name: str) -> None:
        self.wait(lambda: self.chrome.find_elements("xpath", f"//button[@role='tab'][contains(., '{name}')]"))[
            0
        ].click()

    def keep(self, name: str) -> None:
        self.chrome.save_screenshot(str(self.folder / f"{name}.png"))


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="clicking needs selenium")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("clicking needs Chromium and its driver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1300"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(PATIENCE)
    yield Browser(chrome, Path(os.environ.get("OMG_SCREENSHOTS") or tmp_path))
    chrome.quit()


def test_clicks_in_a_browser(address, picture, browser):
    """Upload, segment, point at the cat."""
    browser.chrome.get(address)

    def summary() -> str:
        return browser.one("#summary").text

    browser.upload("#picture", picture)
    browser.one("#run").click()
    browser.wait(lambda: "segments in" in summary())
    browser.one("#overlay img")
    browser.keep("segment")
    many = summary()

    browser.click_on("#picture img")
    browser.wait(lambda: summary() != many and "1 segment in" in summary())
    assert browser.one("#pointed textarea").get_property("value")
    browser.keep("clicked")

    if not has_bundled_chat():
        browser.open_tab("Chat")
        browser.wait(lambda: "--chat-model" in browser.one("#chat-missing").text)
        browser.keep("chat-missing")


@pytest.mark.parametrize("chat_address", ["small", "bundled"], indirect=True)
def test_a_conversation_in_a_browser(chat_address, picture, browser, request):
    """Upload, point at the cat, ask, ask on, begin anew."""
    name = request.node.callspec.params["chat_address"]
    browser.chrome.get(chat_address)
    browser.open_tab("Chat")
    browser.upload("#chat-picture", picture)

    def pointed() -> str:
        return browser.one("#chat-pointed textarea").get_property("value")

    # Again, where it comes before the page has emptied the lines of the picture before.
    browser.wait(lambda: pointed() or browser.click_on("#chat-picture img"))
    browser.keep(f"chat-{name}-pointed")

    def said(speaker: str) -> list[str]:
        return browser.texts(f"#conversation [data-testid={speaker}]")

    for number, question in enumerate(("What is this?", "Segment the cat."), start=1):
        browser.one("#question textarea").send_keys(question)
        browser.one("#ask").click()
        browser.wait(lambda: len(said("bot")) == number)  # noqa: B023  (waits in the loop)
        assert said("user")[-1] == question and said("bot")[-1]
        # What was pointed at belonged to that question.
        assert not pointed()
        browser.keep(f"chat-{name}-{number}")
    browser.one("#reset").click()
    browser.wait(lambda: not said("bot"))


def test_what_is_missing_is_said(capsys, tmp_path):
    assert run(["serve", "--chat-model", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    assert run(["serve", "--model", str(tmp_path / "none")]) == 2
    assert "there is no model" in capsys.readouterr().err
