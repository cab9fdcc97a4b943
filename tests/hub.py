"""A stand-in of the Hugging Face hub on the loopback, for the calls that its client makes for models.

Repositories, branches, commits and large files lie in memory. Answers, headers and refusals are those of
the hub where its client reads them.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens that may do all, and that may read."""

LARGE = (".safetensors", ".onnx")
"""What the hub takes as large files alone."""


@dataclass
class Commit:
    """A state of a repository: what large files hold is known by its sha256 alone."""

    sha: str
    files: dict[str, bytes | str]


@dataclass
class Stored:
    """A repository: its commits by branch, the newest last."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        """Return the commit of a branch, or by its own name."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.sha == revision), None)


@dataclass
class StandIn:
    """What the stand-in holds and was asked, and how it is made to fail.

    Args:
        address: where it listens.
        failing: given method and path, the status to refuse with, 0 to hang up, None to answer.
    """

    address: str = ""
    repositories: dict[str, Stored] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    failing: Callable[[str, str], int | None] = lambda method, path: None

    def create(self, name: str, private: bool, **files: bytes) -> Stored:
        """Make a repository with a first commit."""
        start = {".gitattributes": b"*.safetensors filter=lfs\n", **files}
        stored = Stored(private, {"main": [Commit(self.sha(name), start)]})
        self.repositories[name] = stored
        return stored

    def files(self, name: str, revision: str = "main") -> dict[str, bytes | str]:
        """Return the files of a repository, large ones by their sha256."""
        return self.repositories[name].at(revision).files

    def sha(self, *parts: str) -> str:
        """Return a commit's name that no other has."""
        return hashlib.sha1(json.dumps([*parts, len(self.asked)]).encode()).hexdigest()

    def uploads(self) -> int:
        """Return how many large files were sent."""
        return sum(method == "PUT" for method, _ in self.asked)


class Refusal(Exception):
    """What a request is refused with: a status, and the hub's code and words for it."""

    def __init__(self, status: int, code: str = "", words: str = "refused") -> None:
        self.status, self.code, self.words = status, code, words


def handler_of(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests out of a stand-in."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def answer_any(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = self.read_body()
            hub.asked.append((self.command, path))
            status = hub.failing(self.command, path)
            if status == 0:
                self.close_connection = True
                return
            try:
                if status is not None:
                    raise Refusal(status)
                Request(hub, self, path, body).answer()
            except Refusal as refusal:
                headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.words}
                self.reply(refusal.status, {"error": refusal.words}, headers)

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        do_GET = do_HEAD = do_POST = do_PUT = answer_any

        def reply(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


@dataclass
class Request:
    """One request: each kind has a method, found by its path."""

    hub: StandIn
    handler: BaseHTTPRequestHandler
    path: str
    body: bytes

    ROUTES = (
        (r"/api/repos/create", "create"),
        (r"/api/validate-yaml", "validate"),
        (r"/api/models/([^/]+/[^/]+)/branch/(.+)", "branch"),
        (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", "preupload"),
        (r"/api/models/([^/]+/[^/]+)/commit/(.+)", "commit"),
        (r"/api/models/([^/]+/[^/]+)/revision/(.+)", "info"),
        (r"/api/models/([^/]+/[^/]+)", "info"),
        (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        (r"/large/([0-9a-f]{64})", "large"),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def answer(self) -> None:
        for pattern, name in self.ROUTES:
            if found := re.fullmatch(pattern, self.path):
                getattr(self, name)(*found.groups())
                return
        raise Refusal(404, "EntryNotFound")

    @property
    def token(self) -> str:
        return self.handler.headers.get("Authorization", "").removeprefix("Bearer ")

    def need_writer(self) -> None:
        if self.token != WRITER:
            raise Refusal(403 if self.token == READER else 401, "", "you may not write here")

    def stored(self, name: str) -> Stored:
        """Return a repository; one that may not be seen is not there, as on the hub."""
        stored = self.hub.repositories.get(name)
        if stored is None or (stored.private and self.token not in (WRITER, READER)):
            raise Refusal(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return stored

    def at(self, name: str, revision: str) -> Commit:
        commit = self.stored(name).at(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def create(self) -> None:
        self.need_writer()
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        address = {"url": f"{self.hub.address}/{name}"}
        if name in self.hub.repositories:
            self.handler.reply(409, {"error": "You already created this model repo", **address})
            return
        self.hub.create(name, wanted.get("visibility") == "private" or wanted.get("private", False))
        self.handler.reply(200, address)

    def validate(self) -> None:
        self.handler.reply(200, {"errors": [], "warnings": []})

    def branch(self, name: str, branch: str) -> None:
        self.need_writer()
        branches = self.stored(name).branches
        if branch in branches:
            raise Refusal(409, "", "Reference already exists")
        branches[branch] = [branches["main"][-1]]
        self.handler.reply(200, {})

    def info(self, name: str, revision: str = "main") -> None:
        commit, stored = self.at(name, revision), self.stored(name)
        siblings = [{"rfilename": file} for file in sorted(commit.files)]
        self.handler.reply(
            200, {"id": name, "sha": commit.sha, "private": stored.private, "siblings": siblings}
        )

    def preupload(self, name: str, revision: str) -> None:
        self.need_writer()
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.handler.reply(200, {"files": files})

    def batch(self, name: str) -> None:
        self.need_writer()
        objects = json.loads(self.body)["objects"]
        for own in objects:
            if own["oid"] not in self.hub.blobs:
                own["actions"] = {"upload": {"href": f"{self.hub.address}/large/{own['oid']}"}}
        self.handler.reply(200, {"transfer": "basic", "objects": objects})

    def large(self, oid: str) -> None:
        if self.handler.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise Refusal(400, "", "another sha256")
            self.hub.blobs[oid] = self.body
        self.handler.reply(200, self.hub.blobs[oid], {"ETag": f'"{oid}"'})

    def commit(self, name: str, revision: str) -> None:
        self.need_writer()
        stored, parent = self.stored(name), self.at(name, revision)
        header, *lines = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit", parent.sha) != parent.sha:
            raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                assert value["oid"] in self.hub.blobs, "a large file that was never sent"
                files[value["path"]] = value["oid"]
            else:
                del files[value["path"]]
        sha = self.hub.sha(name, header["value"]["summary"])
        stored.branches[revision].append(Commit(sha, files))
        self.handler.reply(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})

    def resolve(self, name: str, revision: str, file: str) -> None:
        commit = self.at(name, revision)
        headers = {"X-Repo-Commit": commit.sha}
        content = commit.files.get(file)
        if content is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        if isinstance(content, str):
            linked = {"X-Linked-Etag": f'"{content}"', "X-Linked-Size": str(len(self.hub.blobs[content]))}
            # Under another name, as large files lie elsewhere: the client asks there without its token.
            elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
            address = {"Location": f"{elsewhere}/large/{content}"}
            self.handler.reply(302, b"", {**headers, **linked, **address})
            return
        known = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.handler.reply(200, content, {**headers, "ETag": f'"{known}"'})


def started() -> tuple[StandIn, ThreadingHTTPServer]:
    """Return a stand-in that answers, and its server, which is to be shut down and closed."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return hub, server
