"""A stand-in for the Hugging Face hub on this machine: as much of its API as a push and a pull use. Files are kept in a folder.

python tests/models/hub_stand_in.py FOLDER     # prints its port
"""

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40
STORE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


class Hub(BaseHTTPRequestHandler):
    def log_message(self, *_) -> None: ...

    def reply(self, content: dict | list | bytes, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = f"http://127.0.0.1:{self.server.server_port}"
        if self.path.endswith("/preupload/main"):
            files = [file | {"uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.reply({"files": files})
        if self.path.endswith("/commit/main"):
            repo = STORE / "/".join(self.path.split("/")[3:5])
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    path = repo / entry["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(entry["value"]["content"]))
            return self.reply(
                {"commitUrl": f"{url}/{repo.parent.name}/{repo.name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            )
        asked = json.loads(body)
        name = "/".join(filter(None, (asked.get("organization") or "somebody", asked.get("name"))))
        return self.reply({"url": f"{url}/{name}", "name": name, "id": name})

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            repo = STORE / "/".join(parts[2:4])
            if not repo.is_dir():
                return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            if "tree" in parts:
                files = sorted(repo.iterdir())
                return self.reply([{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files])
            files = [{"rfilename": file.name} for file in sorted(repo.iterdir())]
            return self.reply({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": files, "private": False, "tags": []})
        file = STORE / "/".join(parts[:2]) / parts[-1]
        if not file.is_file():
            return self.reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        content = file.read_bytes()
        return self.reply(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    do_HEAD = do_GET


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
