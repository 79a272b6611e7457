"""Say hello over HTTP, on this machine only, at the port of the endpoint `web`."""

import contextlib
import http.server
import os


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"Hello from {os.environ.get('SERAI_SITE', 'somewhere')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


port = int(os.environ["NOMAD_PORT_web"])
print(f"listening on 127.0.0.1:{port}")
with contextlib.suppress(KeyboardInterrupt):  # the site ends it with SIGINT
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Hello).serve_forever()
