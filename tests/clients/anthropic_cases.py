"""The official Anthropic client for Python, of the generation that sends `x-api-key` and of the one that sends a
bearer for the same argument: each test is what a user of it does."""


import functools

import anthropic

import gateway
import replay
from cases import Case, TOOL_PARAMETERS, retry_table

MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"name": "weather", "input_schema": TOOL_PARAMETERS}]
FAULT = {"type": "error", "error": {"type": "a_type", "message": "no"}}
SLOW = {"metadata": {"sim_tokens": "100000", "sim_tps": "20"}}


@functools.cache
def connect(url, **options):
    """A client for all tests: to make one takes long."""
    return anthropic.Anthropic(base_url=url, **options)


class AnthropicCase(Case):
    def client(self, retries=0, timeout=30, **credential):
        credential = credential or {"api_key": gateway.KEY}
        return connect(self.gateway.url, max_retries=retries, timeout=timeout, **credential)

    def create(self, model="demo/sim", messages=MESSAGES, retries=0, max_tokens=16, **more):
        client = self.client(retries=retries)
        return client.messages.create(model=model, messages=messages, max_tokens=max_tokens, **more)

    def told(self, name, **more):
        return self.create("demo/told", [{"role": "user", "content": f"told:{name}"}], **more)


class Messages(AnthropicCase):
    def test_whole(self):
        answer = self.create()
        self.assertEqual((answer.model, answer.type, answer.role), ("demo/sim", "message", "assistant"))
        self.assertTrue(answer.content[0].text)
        self.assertEqual(answer.stop_reason, "end_turn")
        self.assertEqual(answer.usage.output_tokens, 16)
        self.assertGreater(answer.usage.input_tokens + answer.usage.cache_read_input_tokens, 0)

    def test_limit(self):
        answer = self.create(max_tokens=3)
        self.assertEqual((answer.stop_reason, answer.usage.output_tokens), ("max_tokens", 3))

    def test_stream(self):
        events = list(self.create(stream=True, max_tokens=5))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[:2], ["message_start", "content_block_start"])
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
        self.assertEqual(events[0].message.model, "demo/sim")
        self.assertEqual(kinds.count("content_block_delta"), 5)
        self.assertEqual(events[-2].usage.output_tokens, 5)

    def test_stream_helper(self):
        with self.client().messages.stream(model="demo/sim", max_tokens=5, messages=MESSAGES) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        self.assertEqual(message.content[0].text, text)
        self.assertEqual((message.model, message.usage.output_tokens), ("demo/sim", 5))

    def test_tool_use(self):
        answer = self.create(tools=TOOLS, tool_choice={"type": "any"})
        [call] = answer.content
        self.assertEqual((call.type, call.name, answer.stop_reason), ("tool_use", "weather", "tool_use"))
        self.assertTrue(call.input["city"])
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        messages = [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        self.assertEqual(self.create(messages=messages, tools=TOOLS).content[0].type, "text")

    def test_streamed_tool_use(self):
        choice = {"type": "tool", "name": "weather"}
        with self.client().messages.stream(
            model="demo/sim", max_tokens=16, messages=MESSAGES, tools=TOOLS, tool_choice=choice
        ) as stream:
            pieces = [event.partial_json for event in stream if event.type == "input_json"]
            [call] = stream.get_final_message().content
        self.assertGreater(len(pieces), 3)
        self.assertEqual((call.name, list(call.input)), ("weather", ["city"]))
        self.assertTrue(call.input["city"])

    def test_stream_left_early(self):
        aborts = self.gateway.simulated()["client_aborts"]
        with self.create(stream=True, max_tokens=100000, extra_body=SLOW) as stream:
            next(iter(stream))
        self.until_cancelled(aborts)

    def test_timeout(self):
        aborts = self.gateway.simulated()["client_aborts"]
        with self.assertRaises(anthropic.APITimeoutError):
            self.client(timeout=0.5).messages.create(
                model="demo/sim", max_tokens=100000, messages=MESSAGES, extra_body=SLOW
            )
        self.until_cancelled(aborts)

    def test_usage(self):
        answer = self.create(max_tokens=7)
        line = self.gateway.access(api="messages", stream=False, output_tokens=7, usage_reported=True)
        usage = answer.usage
        counted = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        self.assertEqual(line["input_tokens"], counted)


class Keys(AnthropicCase):
    def test_both_credentials(self):
        for credential in ({"api_key": gateway.KEY}, {"auth_token": gateway.KEY}):
            with self.subTest(credential=list(credential)):
                client = self.client(**credential)
                answer = client.messages.create(model="demo/sim", max_tokens=3, messages=MESSAGES)
                self.assertTrue(answer.content)

    def test_the_callers_key_goes_no_further(self):
        good = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
        for credential in ({"api_key": gateway.KEY}, {"auth_token": gateway.KEY}):
            name = self.tell([replay.answer(good)])
            message = [{"role": "user", "content": f"told:{name}"}]
            self.client(**credential).messages.create(model="demo/told", max_tokens=3, messages=message)
            [seen] = self.gateway.upstream.seen(name)
            self.assertNotIn(gateway.KEY, str(seen["headers"]))
            self.assertIn("anthropic-version", seen["headers"])

    def test_wrong_key(self):
        for credential in ({"api_key": "wrong"}, {"auth_token": "wrong"}):
            with self.subTest(credential=list(credential)):
                with self.assertRaises(anthropic.AuthenticationError) as caught:
                    self.client(**credential).messages.create(model="demo/sim", max_tokens=3, messages=MESSAGES)
                self.assertEqual(caught.exception.body["error"]["type"], "authentication_error")

    def test_key_of_another_model(self):
        with self.assertRaises(anthropic.PermissionDeniedError) as caught:
            self.client(api_key=gateway.NARROW_KEY).messages.create(
                model="demo/told", max_tokens=3, messages=MESSAGES
            )
        self.assertEqual(caught.exception.body["error"]["type"], "permission_error")


class Errors(AnthropicCase):
    def refused(self, kind, error_type, ask):
        with self.assertRaises(kind) as caught:
            ask()
        error = caught.exception
        self.assertEqual(error.body["type"], "error")
        self.assertEqual(error.body["error"]["type"], error_type)
        self.assertTrue(error.body["error"]["message"])
        return error

    def test_request_ids(self):
        """The client reads them from the header `request-id`, whoever answers."""
        for model in ("demo/none", "demo/gone"):
            with self.assertRaises(anthropic.APIStatusError) as caught:
                self.create(model)
            self.assertTrue(caught.exception.request_id)
            self.gateway.access(request_id=caught.exception.request_id)
        self.assertTrue(self.create()._request_id)
        name = self.tell([replay.answer(FAULT, 400)])
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.told(name)
        self.assertTrue(caught.exception.request_id)

    def test_bad_requests(self):
        bare = lambda body: self.client().post("/v1/messages", body=body, cast_to=object)
        table = [
            {"model": "demo/sim", "max_tokens": 3},
            {"model": "demo/sim", "max_tokens": 3, "messages": []},
            {"messages": MESSAGES, "max_tokens": 3},
            {"model": "demo/sim", "messages": MESSAGES},
            {"model": "demo/sim", "messages": MESSAGES, "max_tokens": 0},
        ]
        for body in table:
            with self.subTest(body=str(body)):
                error = self.refused(anthropic.BadRequestError, "invalid_request_error", lambda: bare(body))
                line = self.gateway.access(request_id=error.body["request_id"])
                self.assertEqual(line["tries"], 0, "the gateway's own refusal")

    def test_unknown_model(self):
        self.refused(anthropic.NotFoundError, "not_found_error", lambda: self.create("demo/none"))

    def test_no_backend(self):
        self.refused(anthropic.InternalServerError, "api_error", lambda: self.create("demo/gone"))

    def test_a_spent_budget_is_not_asked_again(self):
        ask = lambda: [self.create("demo/weekly") for _ in range(100)]
        error = self.refused(anthropic.RateLimitError, "rate_limit_error", ask)
        self.assertEqual(error.response.headers["x-should-retry"], "false")

    def test_upstream_errors_arrive_as_they_are(self):
        table = {
            400: anthropic.BadRequestError,
            401: anthropic.AuthenticationError,
            403: anthropic.PermissionDeniedError,
            404: anthropic.NotFoundError,
            409: anthropic.ConflictError,
            422: anthropic.UnprocessableEntityError,
            429: anthropic.RateLimitError,
            500: anthropic.InternalServerError,
            529: anthropic.APIStatusError,
        }
        for status, kind in table.items():
            with self.subTest(status=status):
                name = self.tell([replay.answer(FAULT, status)])
                with self.assertRaises(kind) as caught:
                    self.told(name)
                self.assertEqual((caught.exception.status_code, caught.exception.body), (status, FAULT))


class Retries(AnthropicCase):
    def test_what_is_asked_again(self):
        good = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
        self.check_retries(retry_table(FAULT), good, lambda name: self.told(name, retries=2))


class Broken(AnthropicCase):
    """An upstream that dies in mid-stream is an error to the client, never an end."""

    def begun(self):
        message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
        message["usage"] = {"input_tokens": 1, "output_tokens": 1}
        start = {"type": "message_start", "message": message}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "so far"}}
        return [(event["type"], event) for event in (start, block, delta)]

    def test_streams(self):
        for cut in (True, False):
            with self.subTest(cut=cut):
                name = self.tell([replay.answer(replay.sse(self.begun()), cut=cut)])
                seen = []
                with self.assertRaises(anthropic.APIError) as caught:
                    for event in self.told(name, stream=True):
                        seen.append(event.type)
                self.assertEqual(seen, ["message_start", "content_block_start", "content_block_delta"])
                self.assertEqual(caught.exception.body["error"]["type"], "api_error")

    def test_an_error_inside_a_stream(self):
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "overheated"}}
        name = self.tell([replay.answer(replay.sse([*self.begun(), ("error", error)]))])
        with self.assertRaises(anthropic.APIError) as caught:
            list(self.told(name, stream=True))
        self.assertEqual(caught.exception.body, error)

    def test_whole_answers(self):
        name = self.tell([replay.answer({"id": "m", "content": []}, cut=True)])
        with self.assertRaises(anthropic.InternalServerError):
            self.told(name)
