"""A model hub on this machine, for tests of what is downloaded."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789" * 4


def hide_hub(cache, monkeypatch):
    """Use an empty cache of the hub, with no connection to it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@contextmanager
def hub_server(folders, monkeypatch):
    """Serve folders by id; ``owner/gated`` is gated and ``owner/silent`` never answers."""
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(Hub, "folders", folders)
    monkeypatch.setattr(Hub, "seen", [])
    served = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    yield Hub
    served.shutdown()
    served.server_close()


class Hub(BaseHTTPRequestHandler):
    folders: dict = {}  # noqa: RUF012
    seen: list = []  # noqa: RUF012

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if name == "owner/silent":
            time.sleep(2)
        elif name == "owner/gated":
            self.answer("", 403, {"X-Error-Code": "GatedRepo"})
        elif name not in self.folders:
            self.answer("", 404, {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and not path.endswith(("main", COMMIT)):
            self.answer("", 404, {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            self.answer(json.dumps([self.entry(name, file) for file in self.files(name)]))
        elif path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in self.files(name)]
            self.answer(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
        else:
            content = (self.folders[name] / path.split("/", 5)[5]).read_bytes()
            self.answer(content, headers={"ETag": f'"{len(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def files(self, name):
        root = self.folders[name]
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def entry(self, name, file):
        size = (self.folders[name] / file).stat().st_size
        return {"type": "file", "path": file, "size": size, "oid": str(size)}

    def answer(self, content, status=200, headers=None):
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass

    @classmethod
    def fetched(cls):
        """Return the files that were downloaded, relative to their model."""
        return {path.split("/", 5)[5] for path, _ in cls.seen if "/resolve/" in path}
