"""What each client makes of recordings must be the same through the gateway as from the recording's own server."""

import http.client
import json
import urllib.parse

import gateway
import recordings
from cases import Case

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
# What the caller calls a model, and what the replaying server knows it by.
FUNCTION = "recorded/"


class RecordedCase(Case):
    """`APIS` are those the client speaks; `ask` makes a call and lists what the client saw of the answer."""

    APIS = ()

    @classmethod
    def setUpClass(cls):
        cls.recordings = [each for each in recordings.all_recordings() if each.api in cls.APIS]
        if not cls.recordings:
            message = f"no recordings: {recordings.FOLDER} names no folder of them"
            print(f"SKIPPED: {cls.__qualname__}: {message}", flush=True)
            cls.skipTest(cls, message)
        for each in cls.recordings:
            cls.gateway.upstream.tell(each.name, [each.told()])

    def test_the_client_sees_the_same(self):
        for each in self.recordings:
            for more in variants(each):
                with self.subTest(each.name, api=each.api, stream=each.stream, **more):
                    direct = self.ask(self.gateway.upstream_url, each.name, each, **more)
                    through = self.ask(self.gateway.url, FUNCTION + each.name, each, **more)
                    self.assert_same(each, direct, through, **more)
        self.assert_usage()

    def assert_same(self, each, direct, through, stream_options=None):
        wanted = [renamed(each, event) for event in direct]
        if not each.is_whole():
            self.assertIsInstance(through.pop(), Exception, "a broken stream must not end in silence")
        if each.api == "chat" and each.stream and not stream_options:
            self.assertEqual([event for event in through if is_usage_only(event)], [])
            wanted = [without_usage(event) for event in wanted if not is_usage_only(event)]
            through = [without_usage(event) for event in through]
        self.assertEqual(len(through), len(wanted))
        for one, other in zip(through, wanted):
            self.assertEqual(told(one), told(other))

    def test_bytes(self):
        for each in self.recordings:
            with self.subTest(each.name, api=each.api):
                body = {"model": "", "stream": each.stream, **each.request}
                if each.api == "chat" and each.stream:
                    body["stream_options"] = {"include_usage": True}
                direct = post(self.gateway.upstream_url, each, {**body, "model": each.name})
                through = post(self.gateway.url, each, {**body, "model": FUNCTION + each.name})
                self.assertEqual(through[0], direct[0], "status")
                if not each.is_whole():
                    self.assertIn(b"upstream_disconnected" if each.api == "chat" else b"event: error", through[1])
                    continue
                if each.api == "responses" and not each.stream:
                    self.assertEqual(json.loads(anonymous(each, through[1])), json.loads(anonymous(each, direct[1])))
                    continue
                self.assertEqual(anonymous(each, through[1]), anonymous(each, direct[1]))

    def test_responses_from_streams(self):
        for each in self.recordings:
            if each.api != "responses" or not each.stream:
                continue
            with self.subTest(each.name):
                status, body = post(self.gateway.url, each, {"model": FUNCTION + each.name, **each.request})
                final = each.final_response()
                self.assertEqual(status, 200 if final else 502)
                self.assertFalse(body.startswith(b"event:"), "a stream that nobody asked for")
                if final:
                    self.assertEqual(json.loads(body), {**final, "model": FUNCTION + each.name})

    def assert_usage(self):
        """The access log has for each request what the recording has."""
        for each in self.recordings:
            if each.status != 200 or not each.is_whole() or each.is_several():
                continue
            model = FUNCTION + each.name
            self.gateway.access(model=model)
            with self.subTest(f"usage of {each.name}", api=each.api):
                for line in self.gateway.accesses(model=model):
                    if each.usage is None:
                        self.assertFalse(line["usage_reported"])
                    else:
                        self.assertEqual((line["input_tokens"], line["output_tokens"]), each.usage)


def variants(each):
    if each.api == "chat" and each.stream:
        return [{"stream_options": {"include_usage": True}}, {}]
    return [{}]


def told(seen):
    """A value to compare: of an error what its user can read."""
    if isinstance(seen, Exception):
        return type(seen), str(seen).replace(FUNCTION, ""), getattr(seen, "body", None)
    return seen


def renamed(each, event):
    """What the client should see through the gateway: the model's name as the caller gave it."""
    if isinstance(event, Exception):
        return event
    name = FUNCTION + each.name
    event = dict(event)
    for inner in ("response", "message"):
        if isinstance(event.get(inner), dict) and "model" in event[inner]:
            event[inner] = {**event[inner], "model": name}
    if isinstance(event.get("model"), str):
        event["model"] = name
    return event


def is_usage_only(event):
    return isinstance(event, dict) and event.get("choices") == [] and bool(event.get("usage"))


def without_usage(event):
    return {name: value for name, value in event.items() if name != "usage"} if isinstance(event, dict) else event


def post(url, each, body):
    """(status, body) of a call by no client at all."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.KEY}"}
    try:
        connection.request("POST", PATHS[each.api], json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def anonymous(each, body):
    """The bytes with one word for the model's names: the provider's and the caller's."""
    names = {FUNCTION + each.name}
    bodies = each.events() if each.stream else [each.body]
    for event in bodies:
        for value in (event, event.get("response"), event.get("message")):
            if isinstance(value, dict) and isinstance(value.get("model"), str):
                names.add(value["model"])
    for name in names:
        for space in (b"", b" "):
            body = body.replace(b'"model":' + space + json.dumps(name).encode(), b'"model":"M"')
    return body
