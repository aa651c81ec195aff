"""Downloads, against a server on this machine."""

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import jaxsal as js
from jaxsal.models import _hub as hub
from jaxsal.models._files.state_dict import name_map

CONTENT = np.random.default_rng(0).bytes(300_000)
SLOW = 1 << 17
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Files, with ranges; /cut breaks off half-way, /slow waits in the middle, /plain knows no ranges."""

    def do_GET(self):
        self.server.log.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        ranged = "Range" in self.headers and not self.path.startswith("/plain")
        start = start if ranged else 0
        if ranged and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.path.startswith("/slow"):
            self.wfile.write(body[:SLOW])
            self.wfile.flush()
            self.server.end.wait(60)
            return
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/cut") else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.log, server.end = [], threading.Event()
        server.files = dict.fromkeys(["/w.bin", "/cut/w.bin", "/slow/w.bin", "/plain/w.bin"], CONTENT)
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.end.set()
        server.shutdown()


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_fetches_once(server, tmp_path):
    for _ in range(2):
        path = hub.fetch(f"{server.url}/w.bin", SHA[:8], tmp_path / "new" / "folder")
        assert path.read_bytes() == CONTENT
    assert server.log == [("/w.bin", None)]
    assert names(path.parent) == ["w.bin"]


@pytest.mark.parametrize("have", [1000, len(CONTENT)])
def test_resumes(server, tmp_path, have):
    (tmp_path / "w.bin.part").write_bytes(CONTENT[:have])
    assert hub.fetch(f"{server.url}/w.bin", SHA, tmp_path).read_bytes() == CONTENT
    assert server.log == [("/w.bin", f"bytes={have}-")]


def test_starts_over_where_the_server_knows_no_ranges(server, tmp_path):
    (tmp_path / "w.bin.part").write_bytes(b"x" * 1000)
    assert hub.fetch(f"{server.url}/plain/w.bin", SHA, tmp_path).read_bytes() == CONTENT


def test_goes_on_after_a_break(server, tmp_path):
    with pytest.raises(ConnectionError, match="weights=PATH"):
        hub.fetch(f"{server.url}/cut/w.bin", SHA, tmp_path)
    assert names(tmp_path) == ["w.bin.part"]
    assert hub.fetch(f"{server.url}/w.bin", SHA, tmp_path).read_bytes() == CONTENT
    assert server.log[-1][1] == f"bytes={len(CONTENT) // 2}-"


def test_another_hash_is_deleted(server, tmp_path):
    with pytest.raises(ValueError, match=r"SHA-256 of .*expected 00000000\.\.\.\. The download was deleted"):
        hub.fetch(f"{server.url}/w.bin", "00000000", tmp_path)
    assert names(tmp_path) == []


def test_not_there_and_no_server(server, tmp_path):
    with pytest.raises(ConnectionError, match=r"none\.bin: got HTTP 404 Not Found, expected a download\. Download"):
        hub.fetch(f"{server.url}/none.bin", SHA, tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="weights=PATH"):
        hub.fetch(f"{server.url}/w.bin", SHA, tmp_path)


def test_many_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=hub.fetch, args=(f"{server.url}/w.bin", SHA, tmp_path)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(server.log) == 1


def test_a_stale_partial_file_is_found_out(server, tmp_path):
    (tmp_path / "w.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="was deleted"):
        hub.fetch(f"{server.url}/w.bin", SHA, tmp_path)
    assert hub.fetch(f"{server.url}/w.bin", SHA, tmp_path).read_bytes() == CONTENT


def test_a_killed_process_leaves_nothing_that_blocks(server, tmp_path):
    call = f"hub.fetch('{server.url}/slow/w.bin', '{SHA}', pathlib.Path('{tmp_path}'))"
    code = f"import pathlib; from jaxsal.models import _hub as hub; {call}"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "w.bin.part").exists() or not (tmp_path / "w.bin.part").stat().st_size:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert hub.fetch(f"{server.url}/w.bin", SHA, tmp_path).read_bytes() == CONTENT
    assert 0 < int(server.log[-1][1].removeprefix("bytes=").removesuffix("-")) <= SLOW


def test_unwritable_folders_are_no_network_errors(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError) as error:
        hub.fetch(f"{server.url}/w.bin", SHA, tmp_path / "file")
    assert not isinstance(error.value, ConnectionError)


def test_progress_goes_to_a_terminal_only(server, tmp_path, capsys, monkeypatch):
    hub.fetch(f"{server.url}/w.bin", SHA, tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hub.fetch(f"{server.url}/w.bin", SHA, tmp_path / "b")
    assert capsys.readouterr().err.endswith("\rw.bin: 0.3 of 0.3 MB\n")


def test_table(shared_path):
    assert set(hub.OFFICIAL) == set(js.models.list()) - {"scenes"}
    for name, source in hub.OFFICIAL.items():
        assert source.url.startswith("https://") and re.fullmatch("[0-9a-f]{8}", source.sha256)
        assert re.fullmatch(rf"[a-z0-9_-]+-{source.sha256}\.pth?", source.file_name) or name.startswith("cifar")
        assert source.file_name.startswith(name.removeprefix("cifar_"))
    file = shared_path("data", "weights", hub.OFFICIAL["cifar_resnet20"].file_name)
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(hub.OFFICIAL["cifar_resnet20"].sha256)


def test_official_weights_are_fetched_checked_and_loaded(server, tmp_path, monkeypatch, shared_path):
    file = shared_path("data", "weights", "resnet20-12fca82f.th")
    source = hub.OFFICIAL["cifar_resnet20"]
    server.files["/" + source.file_name] = file.read_bytes()
    monkeypatch.setenv("JAXSAL_CACHE", str(tmp_path))
    monkeypatch.setitem(hub.OFFICIAL, "cifar_resnet20", source._replace(url=f"{server.url}/{source.file_name}"))
    f = js.models.load("cifar_resnet20")
    assert names(tmp_path) == [source.file_name]
    assert (f.image_size, f.labels[3]) == (32, "cat")
    twin = js.models.load("cifar_resnet20", file.with_name("cifar_resnet20.safetensors"))
    for ours, theirs in zip(jax.tree.leaves(f), jax.tree.leaves(twin), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    with pytest.raises(ValueError, match="None, expected weights=PATH or a hub id"):
        hub.official("resnet19")


def test_a_file_downloaded_by_hand_has_the_same_settings():
    path = Path("anywhere/googlenet-1378be20.pth")
    assert hub.known("googlenet", path) == hub.OFFICIAL["googlenet"].metadata
    assert hub.known("googlenet", path)["transform_input"]
    assert hub.known("resnet18", path) == hub.known("googlenet", Path("my.pth")) == hub.known("scenes", path) == {}


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXSAL_CACHE", str(tmp_path))
    assert hub.cache_folder() == tmp_path
    monkeypatch.delenv("JAXSAL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.cache_folder() == tmp_path / ".cache" / "jaxsal"


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A stand-in for the package ``huggingface_hub``; the list of what it was asked for."""
    asked = []
    state = {
        key: np.ones(entry.shape, np.float32)
        for key, entry in name_map(nnx.eval_shape(lambda: js.models.create("cifar_resnet20", 7))).items()
    }
    config = {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "input_size": [3, 64, 64]}}

    class Hub:
        @staticmethod
        def hf_hub_download(repository, file):
            asked.append((repository, file))
            if repository == "timm/none":
                raise RuntimeError("404 Client Error.\nRepository Not Found")
            if file == "config.json":
                (tmp_path / file).write_text(json.dumps(config))
            else:
                save_file(state, tmp_path / file)
            return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    return asked


def test_hub_ids(fake_hub):
    f = js.models.load("cifar_resnet20", "timm/some.a1_in1k")
    assert fake_hub == [("timm/some.a1_in1k", "model.safetensors"), ("timm/some.a1_in1k", "config.json")]
    assert f.image_size == 64
    np.testing.assert_allclose(f.mean, [0.5, 0.4, 0.3])
    np.testing.assert_allclose(f.std, [0.1, 0.2, 0.3])


def test_hub_errors_say_what_to_do(fake_hub, monkeypatch):
    with pytest.raises(
        ConnectionError, match=r"404 Client Error\. Repository Not Found, expected .* pass weights=PATH"
    ):
        js.models.load("resnet18", "timm/none")
    with pytest.raises(ValueError, match="do not fit resnet18"):
        js.models.load("resnet18", "timm/resnet18.a1_in1k")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxsal\[hub\]'"):
        js.models.load("resnet18", "timm/resnet18.a1_in1k")


def test_missing_files_are_not_taken_for_hub_ids(fake_hub):
    for missing in ("folder/w.safetensors", "folder/w.pth", "w.npz", Path("timm/resnet18")):
        with pytest.raises(FileNotFoundError):
            js.models.load("resnet18", missing)
    assert not fake_hub
