"""The official OpenAI client against a running gateway: suite.py PATH_OF_WEIR."""

import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import openai

KEY = "client-suite-key"
START_SECONDS = 60
CONFIG = """
[server]
threads = 1
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn"
[[listeners]]
name = "main"
listen = "127.0.0.1:{port}"
[[simulators]]
listen = "127.0.0.1:{upstream}"
ttft_ms = 0
tokens_per_second = 1000.0
[[key_tables.clients.keys]]
id = "client"
key = "{key}"
[filters.auth]
module = "builtin:auth"
config = {{ key_table = "clients" }}
grants = {{ read_headers = ["authorization"], key_tables = ["clients"] }}
[filters.token-limit]
module = "builtin:token-limit"
config = {{ default = "1000000-S" }}
grants = {{ limiters = true }}
[filters.session-affinity]
module = "builtin:session-affinity"
grants = {{ read_headers = ["x-multi-turn-session-id"], write_headers = ["x-multi-turn-session-id"] }}
[filters.routing-method]
module = "builtin:routing-method"
config = {{ default = "round_robin" }}
[pipelines.default]
filters = ["auth", "token-limit", "session-affinity", "routing-method"]
[clusters.sim]
endpoints = ["127.0.0.1:{upstream}"]
[functions.demo.models.sim]
cluster = "sim"
[functions.demo.models.small]
cluster = "sim"
token_rate_limit = "1-W"
"""
MESSAGES = [{"role": "user", "content": "hi"}]


class Clients(unittest.TestCase):
    """Each test asks one gateway, which is started once."""

    weir = ""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        port, admin, upstream = free_ports(3)
        config = pathlib.Path(cls.folder.name, "weir.toml")
        config.write_text(CONFIG.format(port=port, admin=admin, upstream=upstream, key=KEY))
        log = open(pathlib.Path(cls.folder.name, "log"), "w+", encoding="utf-8")
        cls.addClassCleanup(log.close)
        command = [cls.weir, "run", "--config", str(config)]
        gateway = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        cls.addClassCleanup(end, gateway)
        wait_until_ready(gateway, f"http://127.0.0.1:{admin}/readyz", log)
        cls.base_url = f"http://127.0.0.1:{port}/v1"

    def client(self, key=KEY):
        # Retries would hide what is refused.
        client = openai.OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=30)
        self.addCleanup(client.close)
        return client

    def test_completion(self):
        answer = self.client().chat.completions.create(model="demo/sim", messages=MESSAGES)
        self.assertEqual(answer.model, "demo/sim")
        self.assertTrue(answer.choices[0].message.content)
        self.assertEqual(
            answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens
        )

    def test_stream(self):
        stream = self.client().chat.completions.create(
            model="demo/sim",
            messages=MESSAGES,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertTrue(all(chunk.model == "demo/sim" for chunk in chunks))
        self.assertGreaterEqual(len(text), 2)
        self.assertIn(reasons[-1], ("stop", "length"))
        self.assertEqual(chunks[-1].usage.completion_tokens, 5)

    def test_tools(self):
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        answer = self.client().chat.completions.create(
            model="demo/sim", messages=MESSAGES, tools=[tool], tool_choice="auto"
        )
        self.assertEqual(answer.model, "demo/sim")

    def test_responses(self):
        answer = self.client().responses.create(model="demo/sim", input="hi")
        self.assertEqual(answer.model, "demo/sim")
        self.assertTrue(answer.output_text)

    def test_responses_stream(self):
        events = list(self.client().responses.create(model="demo/sim", input="hi", stream=True))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual(events[-1].type, "response.completed")
        self.assertEqual(events[-1].response.model, "demo/sim")

    def test_embeddings(self):
        answer = self.client().embeddings.create(model="demo/sim", input=["a", "b"])
        self.assertEqual([each.index for each in answer.data], [0, 1])
        self.assertTrue(answer.data[0].embedding)

    def test_model(self):
        self.assertEqual(self.client().models.retrieve("demo/sim").id, "demo/sim")
        with self.assertRaises(openai.NotFoundError):
            self.client().models.retrieve("demo/none")

    def test_stream_left_early(self):
        with self.client().chat.completions.create(
            model="demo/sim", messages=MESSAGES, max_tokens=500, stream=True
        ) as stream:
            next(iter(stream))
        self.test_completion()

    def test_models(self):
        names = [model.id for model in self.client().models.list()]
        self.assertIn("demo/sim", names)

    def test_wrong_key(self):
        with self.assertRaises(openai.AuthenticationError) as caught:
            self.client("wrong").chat.completions.create(model="demo/sim", messages=MESSAGES)
        self.assertEqual(caught.exception.status_code, 401)
        self.assertEqual(caught.exception.code, "invalid_api_key")

    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client().chat.completions.create(model="demo/none", messages=MESSAGES)
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_body_without_messages(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client().post("/chat/completions", body={"model": "demo/sim"}, cast_to=object)
        self.assertEqual(caught.exception.type, "invalid_request_error")

    def test_limit(self):
        with self.assertRaises(openai.RateLimitError) as caught:
            for _ in range(2):
                self.client().chat.completions.create(model="demo/small", messages=MESSAGES)
        self.assertEqual(caught.exception.code, "rate_limit_exceeded")


def free_ports(count):
    """Ports that were free together a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_ready(gateway, url, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if gateway.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            log.flush()
            log.seek(0)
            raise RuntimeError(f"the gateway does not get ready; its log:\n{log.read()}") from error


def end(process):
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: suite.py PATH_OF_WEIR [TEST ...]")
    Clients.weir = sys.argv.pop(1)
    unittest.main(verbosity=2)
