"""A model server that answers as it was told: a recording, a refusal, an answer that breaks off.

Answers are told by `tell(NAME, [...])`, or from another process by `PUT /told/NAME`. A request gets those of the
name that is its `model`, or that its body holds as `told:NAME`. The last answer is given again and again.
"""

import http.server
import json
import re
import threading
import time

# Sizes of the pieces in which events are sent: they cut lines, line ends and characters anywhere.
PIECES = (1, 2, 3, 7, 31, 127, 509, 1021)
TOLD = re.compile(rb"told:([A-Za-z0-9._-]+)")
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages")


def answer(body, status=200, headers=None, cut=False):
    """JSON or, as a text, server-sent events. With `cut` the connection breaks in the place of the answer's end."""
    return {"status": status, "headers": headers or {}, "body": body, "cut": cut}


def sse(events):
    """The text of events of one line each: (name, data) or data alone."""
    text = ""
    for event in events:
        name, data = event if isinstance(event, tuple) else (None, event)
        text += f"event: {name}\n" if name else ""
        text += f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
    return text


class ModelServer:
    """Runs until `close`. `seen(NAME)` lists the requests that asked for NAME, each with the time it came."""

    def __init__(self):
        self.lock = threading.Lock()
        self.answers = {}
        self.requests = {}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.owner = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def tell(self, name, answers):
        with self.lock:
            self.answers[name] = list(answers)
            self.requests[name] = []

    def seen(self, name):
        with self.lock:
            return list(self.requests.get(name, ()))

    def take(self, body, request):
        """The answer to a request, `None` if nobody told one."""
        try:
            asked = json.loads(body)
        except ValueError:
            asked = {}
        with self.lock:
            name = asked.get("model")
            if name not in self.answers:
                found = TOLD.search(body)
                name = found.group(1).decode() if found else None
            if name not in self.answers:
                return None
            self.requests[name].append({**request, "body": asked, "at": time.monotonic()})
            told = self.answers[name]
            return responses_stream(told.pop(0) if len(told) > 1 else told[0], request["path"], asked)


def responses_stream(told, path, asked):
    """Whoever asks for a stream of a response gets one, whose last event holds the whole of it."""
    body = told["body"]
    if path != "/v1/responses" or not asked.get("stream") or told["status"] != 200 or isinstance(body, str):
        return told
    begun = {"type": "response.created", "sequence_number": 0, "response": {**body, "status": "in_progress", "output": []}}
    kind = f"response.{body['status']}"
    ended = {"type": kind, "sequence_number": 1, "response": body}
    return {**told, "body": sse([("response.created", begun), (kind, ended)])}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = self.server.owner.take(body, {"path": self.path.partition("?")[0], "headers": headers})
        if told is None or self.path.partition("?")[0] not in PATHS:
            told = answer({"error": {"message": f"nobody told an answer to {body[:200]!r}"}}, 418)
        if isinstance(told["body"], str):
            self.send_events(told)
        else:
            self.send_json(told)

    def do_PUT(self):
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.owner.tell(self.path.removeprefix("/told/"), [{**answer(None), **each} for each in told])
        self.send_json(answer({}))

    def do_GET(self):
        if self.path == "/health":
            self.send_json(answer({}))
        else:
            self.send_json(answer(self.server.owner.seen(self.path.removeprefix("/seen/"))))

    def send_head(self, told, content_type, framing):
        self.send_response(told["status"])
        self.send_header("content-type", content_type)
        for name, value in {**told["headers"], **framing}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_json(self, told):
        body = json.dumps(told["body"], ensure_ascii=False, separators=(",", ":")).encode()
        length = len(body) + (100 if told["cut"] else 0)
        self.send_head(told, "application/json", {"content-length": str(length)})
        self.wfile.write(body)
        if told["cut"]:
            self.cut()

    def send_events(self, told):
        self.send_head(told, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"})
        body = told["body"].encode()
        at = turn = 0
        while at < len(body):
            piece = body[at : at + PIECES[turn % len(PIECES)]]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            at += len(piece)
            turn += 1
        if told["cut"]:
            self.cut()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def cut(self):
        """Ends the connection in the middle: a half-close, then nothing. A reset could overtake what was sent."""
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_):
        pass
