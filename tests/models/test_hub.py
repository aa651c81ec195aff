"""Downloads, against a server on this machine."""

import hashlib
import http.server
import re
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxsal as js
from jaxsal.models import hub

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """One file, with ranges; /cut breaks off half-way, /plain knows no ranges, all else is not there."""

    def do_GET(self):
        self.server.log.append((self.path, self.headers.get("Range")))
        if self.path not in ("/w.bin", "/cut/w.bin", "/plain/w.bin"):
            self.send_error(404)
            return
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        ranged = "Range" in self.headers and not self.path.startswith("/plain")
        start = start if ranged else 0
        if ranged and start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/cut") else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.log = []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
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
    with pytest.raises(ValueError, match=r"SHA-256 of .*expected 00000000. The file was deleted"):
        hub.fetch(f"{server.url}/w.bin", "00000000", tmp_path)
    assert names(tmp_path) == []


def test_not_there_and_no_server(server, tmp_path):
    with pytest.raises(ConnectionError, match=r"none.bin: got Not Found, expected the file. Download it elsewhere"):
        hub.fetch(f"{server.url}/none.bin", SHA, tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="weights=PATH"):
        hub.fetch(f"{server.url}/w.bin", SHA, tmp_path, timeout=2.0)


def test_many_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=hub.fetch, args=(f"{server.url}/w.bin", SHA, tmp_path)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(server.log) == 1


def test_table_and_cache(monkeypatch, tmp_path):
    assert set(hub._FILES) <= set(js.models.list())
    assert all(re.fullmatch(r"[a-z0-9_-]+-[0-9a-f]{8}\.pth", name) for name in hub._FILES.values())
    monkeypatch.setenv("JAXSAL_CACHE", str(tmp_path))
    assert hub.cache_folder() == tmp_path
    (tmp_path / hub._FILES["googlenet"]).write_bytes(b"")
    assert hub.official("googlenet") == (tmp_path / hub._FILES["googlenet"], {"transform_input": True})
    with pytest.raises(ValueError, match=r"no official weights of cifar_resnet20 are known. Give a file"):
        js.models.load("cifar_resnet20")


def test_hub_ids(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxsal\[hub\]'"):
        js.models.load("resnet18", "timm/resnet18.a1_in1k")
    asked = []

    class Hub:
        @staticmethod
        def hf_hub_download(repository, file):
            asked.append((repository, file))
            save_file({"fc.bias": np.ones(7, np.float32)}, tmp_path / file)
            return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    with pytest.raises(ValueError, match="do not fit resnet18"):
        js.models.load("resnet18", "timm/resnet18.a1_in1k")
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
