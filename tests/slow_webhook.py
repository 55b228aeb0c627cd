"""A validating webhook that allows everything, and takes its time: SECONDS for each answer. Its certificate is in /tls."""

import http.server
import json
import os
import ssl
import time


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(float(os.environ["SECONDS"]))
        response = {"uid": review["request"]["uid"], "allowed": True}
        self._answer({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
    server = http.server.ThreadingHTTPServer(("", 8443), Webhook)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
