"""A small Hugging Face hub on loopback: repositories in memory, behind as much of the hub's protocol as is needed.

What a client must send and gets back is what huggingface_hub 1.5 to 2.4 send and read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WRITER = "hf_writer"
"""The one token that is known."""

USER = "me"
"""Whose it is, and the only name that it may write under."""


@dataclass
class Repository:
    """Commits, newest last, and the branches that point at them; `main` is there from the start."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {".gitattributes": b""}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def commit(self, revision: str, files: dict[str, bytes]) -> str:
        there = {**self.commits[self.branches[revision]], **files}
        sha = hashlib.sha1(json.dumps([len(self.commits), sorted(there)]).encode()).hexdigest()
        self.commits[sha] = there
        self.branches[revision] = sha
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the main branch."""
        return self.commits[self.branches["main"]]


class HubServer:
    """Serves until it is closed.

    Attributes:
        repositories: By hub id.
        requests: ``METHOD /path`` of every request, in order.
        sizes: (hub id, file) -> size that is told in place of the true one.
        is_down: Whether it answers HTTP 503, whatever is asked.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.sizes: dict[tuple[str, str], int] = {}
        self.uploads: dict[str, bytes] = {}
        self.is_closed = self.is_down = False
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Ends it; nobody gets an answer any more."""
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


_ROUTES = (
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
    ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
    ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/upload/(\w+)", "upload"),
    ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
    ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
    ("GET|HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        if self.server_hub.is_closed:  # a connection that was kept open outlives the server
            self.close_connection = True
            return
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.server_hub.requests.append(f"{self.command} {path}")
        try:
            if self.server_hub.is_down:
                raise _RefusedError(503, message="Down for maintenance")
            for method, pattern, name in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split("|"):
                    self._answer(*getattr(self, f"_{name}")(body, *found.groups()))
                    return
            raise _RefusedError(404, message=f"no route {self.command} {path}")
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._answer(refused.status, {"error": refused.message}, {k: v for k, v in headers.items() if v})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _token(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token not in (None, WRITER):
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        return token

    def _readable(self, repo_id: str) -> Repository:
        repository, token = self.server_hub.repositories.get(repo_id), self._token()
        if repository is None or (repository.private and token is None):
            # As the hub does, which tells nobody what there is.
            raise _RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _writable(self, repo_id: str) -> Repository:
        if self._token() is None:
            raise _RefusedError(401, message="Unauthorized")
        if not repo_id.startswith(f"{USER}/"):
            raise _RefusedError(403, message="You don't have the rights to write there")
        return self._readable(repo_id)

    def _at(self, repository: Repository, revision: str | None) -> tuple[str, dict[str, bytes]]:
        sha = repository.find(revision or "main")
        if sha is None:
            raise _RefusedError(404, "RevisionNotFound", "Invalid rev id")
        return sha, repository.commits[sha]

    def _size(self, repo_id: str, name: str, content: bytes) -> int:
        return self.server_hub.sizes.get((repo_id, name), len(content))

    def _create(self, body: bytes) -> tuple[int, object]:
        asked = json.loads(body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if self._token() is None:
            raise _RefusedError(401, message="Unauthorized")
        if asked["organization"] != USER:
            raise _RefusedError(403, message=f'You don\'t have the rights to create a model under "{repo_id}"')
        if repo_id in self.server_hub.repositories:
            raise _RefusedError(409, message="You already created this model repo")
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server_hub.repositories[repo_id] = Repository(private)
        return 200, {"url": f"{self.server_hub.endpoint}/{repo_id}"}

    def _validate(self, body: bytes) -> tuple[int, object]:
        assert json.loads(body)["content"].startswith("---\n")
        return 200, {"errors": [], "warnings": []}

    def _preupload(self, body: bytes, repo_id: str, revision: str) -> tuple[int, object]:
        self._at(self._writable(repo_id), revision)
        modes = [
            {
                "path": file["path"], "shouldIgnore": False, "oid": None,
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
            }
            for file in json.loads(body)["files"]
        ]  # fmt: skip
        return 200, {"files": modes}

    def _batch(self, body: bytes, repo_id: str) -> tuple[int, object]:
        self._writable(repo_id)
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server_hub.endpoint}/upload/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return 200, {"objects": objects, "transfer": "basic"}

    def _upload(self, body: bytes, oid: str) -> tuple[int, object]:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server_hub.uploads[oid] = body
        return 200, {}

    def _branch(self, body: bytes, repo_id: str, name: str) -> tuple[int, object]:
        repository = self._writable(repo_id)
        if name in repository.branches:
            raise _RefusedError(409, message="Reference already exists")
        repository.branches[name] = repository.branches["main"]
        return 201, {}

    def _commit(self, body: bytes, repo_id: str, revision: str) -> tuple[int, object]:
        repository, files = self._writable(repo_id), {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.server_hub.uploads[line["value"]["oid"]]
        sha = repository.commit(revision, files)
        url = f"{self.server_hub.endpoint}/{repo_id}/commit/{sha}"
        return 200, {"success": True, "commitOid": sha, "commitUrl": url}

    def _info(self, body: bytes, repo_id: str, revision: str | None) -> tuple[int, object]:
        repository = self._readable(repo_id)
        sha, files = self._at(repository, revision)
        siblings = [{"rfilename": name, "size": self._size(repo_id, name, content)} for name, content in files.items()]
        shown = {"id": repo_id, "sha": sha, "private": repository.private, "gated": repository.gated}
        return 200, {**shown, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}

    def _tree(self, body: bytes, repo_id: str, revision: str) -> tuple[int, object]:
        files = self._at(self._readable(repo_id), revision)[1]
        return 200, [
            {
                "type": "file", "path": name, "size": self._size(repo_id, name, content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            for name, content in files.items()
        ]  # fmt: skip

    def _resolve(self, body: bytes, repo_id: str, revision: str, name: str) -> tuple[int, object, dict[str, str]]:
        repository = self._readable(repo_id)
        sha, files = self._at(repository, revision)
        if repository.gated:
            raise _RefusedError(403, "GatedRepo", "Access to this model is restricted")
        if name not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": sha}
        return 200, files[name], headers
