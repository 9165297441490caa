"""The official OpenAI client for Python, 1.x and the current one: each test is what a user of it does."""

import base64
import functools
import json
import struct

import openai

import gateway
import replay
from cases import Case, TOOL_PARAMETERS, retry_table

MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": TOOL_PARAMETERS}}]
FLAT_TOOLS = [{"type": "function", "name": "weather", "parameters": TOOL_PARAMETERS, "strict": False}]
# What the current client makes of each status.
ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@functools.cache
def connect(url, **options):
    """A client for all tests: to make one takes long."""
    return openai.OpenAI(base_url=f"{url}/v1", **options)


class OpenAICase(Case):
    def client(self, key=gateway.KEY, retries=0, timeout=30):
        # Retries would hide what is refused.
        return connect(self.gateway.url, api_key=key, max_retries=retries, timeout=timeout)

    def chat(self, model="demo/sim", messages=MESSAGES, retries=0, **more):
        return self.client(retries=retries).chat.completions.create(model=model, messages=messages, **more)


class Chat(OpenAICase):
    def test_whole(self):
        answer = self.chat()
        self.assertEqual(answer.model, "demo/sim")
        self.assertEqual(answer.object, "chat.completion")
        self.assertTrue(answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        usage = answer.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertTrue(answer._request_id)

    def test_stream(self):
        chunks = list(self.chat(max_tokens=5, stream=True, stream_options={"include_usage": True}))
        text = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertTrue(all(chunk.model == "demo/sim" for chunk in chunks))
        self.assertEqual(len(text), 5)
        self.assertEqual(reasons[-1], "length")
        self.assertEqual(chunks[-1].usage.completion_tokens, 5)
        self.assertEqual([c for c in chunks[:-1] if c.usage], [], "usage comes last and once")

    def test_usage_that_was_not_asked_for_is_hidden(self):
        chunks = list(self.chat(max_tokens=5, stream=True))
        self.assertEqual([c for c in chunks if "usage" in c.model_fields_set], [])
        self.assertEqual([c for c in chunks if not c.choices], [])
        line = self.gateway.access(model="demo/sim", stream=True, output_tokens=5, usage_reported=True)
        self.assertGreater(line["input_tokens"], 0)

    def test_tool_call(self):
        answer = self.chat(tools=TOOLS, tool_choice="required")
        choice = answer.choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        [call] = choice.message.tool_calls
        self.assertEqual((call.type, call.function.name), ("function", "weather"))
        self.assertTrue(json.loads(call.function.arguments)["city"])
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        told = self.chat(messages=[*MESSAGES, choice.message, result], tools=TOOLS)
        self.assertTrue(told.choices[0].message.content)

    def test_streamed_tool_call(self):
        name, arguments, ids, pieces, reason = "", "", set(), 0, None
        for chunk in self.chat(tools=TOOLS, tool_choice="required", stream=True):
            delta = chunk.choices[0].delta
            for call in delta.tool_calls or []:
                self.assertEqual(call.index, 0)
                ids.update([call.id] if call.id else [])
                name += call.function.name or ""
                arguments += call.function.arguments or ""
                pieces += 1
            reason = chunk.choices[0].finish_reason or reason
        self.assertEqual((name, reason, len(ids)), ("weather", "tool_calls", 1))
        self.assertGreater(pieces, 3)
        self.assertTrue(json.loads(arguments)["city"])

    def test_stream_left_early(self):
        aborts = self.gateway.simulated()["client_aborts"]
        slow = {"sim_tokens": "100000", "sim_tps": "20"}
        with self.chat(stream=True, metadata=slow) as stream:
            next(iter(stream))
        self.until_cancelled(aborts)

    def test_timeout(self):
        aborts = self.gateway.simulated()["client_aborts"]
        client = self.client(timeout=0.5)
        with self.assertRaises(openai.APITimeoutError):
            client.chat.completions.create(
                model="demo/sim", messages=MESSAGES, metadata={"sim_tps": "0.001"}
            )
        self.until_cancelled(aborts)


class Responses(OpenAICase):
    def respond(self, **more):
        return self.client().responses.create(model="demo/sim", input="hi", **more)

    def test_whole(self):
        answer = self.respond()
        self.assertEqual((answer.model, answer.status), ("demo/sim", "completed"))
        self.assertTrue(answer.output_text)
        self.assertGreater(answer.usage.output_tokens, 0)

    def test_incomplete(self):
        answer = self.respond(max_output_tokens=3)
        self.assertEqual(answer.status, "incomplete")
        self.assertEqual(answer.incomplete_details.reason, "max_output_tokens")

    def test_stream(self):
        events = list(self.respond(stream=True))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[:2], ["response.created", "response.in_progress"])
        self.assertEqual(kinds[-1], "response.completed")
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        whole = events[-1].response
        self.assertEqual(whole.model, "demo/sim")
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        self.assertEqual(text, whole.output_text)

    def test_stream_helper(self):
        with self.client().responses.stream(model="demo/sim", input="hi") as stream:
            for _ in stream:
                pass
            self.assertTrue(stream.get_final_response().output_text)

    def test_tool_call(self):
        answer = self.respond(tools=FLAT_TOOLS, tool_choice="required")
        [call] = answer.output
        self.assertEqual((call.type, call.name, call.status), ("function_call", "weather", "completed"))
        self.assertTrue(json.loads(call.arguments)["city"])
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        told = self.client().responses.create(
            model="demo/sim", input=[*MESSAGES, call.model_dump(exclude_none=True), result], tools=FLAT_TOOLS
        )
        self.assertTrue(told.output_text)

    def test_streamed_tool_call(self):
        events = list(self.respond(tools=FLAT_TOOLS, tool_choice="required", stream=True))
        deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        [done] = [e for e in events if e.type == "response.function_call_arguments.done"]
        self.assertGreater(len(deltas), 2)
        self.assertEqual("".join(deltas), done.arguments)
        [call] = events[-1].response.output
        self.assertEqual(call.arguments, done.arguments)

    def test_stream_left_early(self):
        aborts = self.gateway.simulated()["client_aborts"]
        slow = {"sim_tokens": "100000", "sim_tps": "20"}
        with self.respond(stream=True, metadata=slow) as stream:
            next(iter(stream))
        self.until_cancelled(aborts)


class Embeddings(OpenAICase):
    def embed(self, given, **more):
        return self.client().embeddings.create(model="demo/sim", input=given, **more)

    def test_base64_and_float_are_the_same(self):
        # The client asks for base64 unless told otherwise, and decodes it itself.
        unpacked = self.embed("a").data[0].embedding
        floats = self.embed("a", encoding_format="float").data[0].embedding
        packed = self.embed("a", encoding_format="base64").data[0].embedding
        packed = base64.b64decode(packed) if isinstance(packed, str) else struct.pack(f"<{len(packed)}f", *packed)
        self.assertEqual(list(struct.unpack(f"<{len(floats)}f", packed)), list(unpacked))
        for one, other in zip(floats, unpacked):
            self.assertAlmostEqual(one, other, places=6)

    def test_inputs(self):
        for given, count, tokens in [
            ("abcde", 1, 2),
            (["a", "b"], 2, 2),
            ([1, 2, 3], 1, 3),
            ([[1, 2], [3]], 2, 3),
        ]:
            with self.subTest(input=given):
                answer = self.embed(given)
                self.assertEqual([each.index for each in answer.data], list(range(count)))
                self.assertEqual(answer.usage.prompt_tokens, tokens)
                self.assertEqual(answer.model, "demo/sim")

    def test_dimensions(self):
        self.assertEqual(len(self.embed("a", dimensions=8).data[0].embedding), 8)

    def test_bad_inputs(self):
        for given in ["", [], [""], ["a"] * 2049]:
            with self.subTest(input=str(given)[:20]):
                with self.assertRaises(openai.BadRequestError) as caught:
                    self.embed(given)
                self.assertEqual(caught.exception.param, "input")


class Models(OpenAICase):
    def test_list(self):
        models = {model.id: model for model in self.client().models.list()}
        self.assertIn("demo/sim", models)
        self.assertEqual(models["demo/sim"].object, "model")

    def test_retrieve(self):
        self.assertEqual(self.client().models.retrieve("demo/sim").id, "demo/sim")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client().models.retrieve("demo/none")
        self.assertEqual(caught.exception.code, "model_not_found")


class Errors(OpenAICase):
    def refused(self, kind, code, ask):
        with self.assertRaises(kind) as caught:
            ask()
        error = caught.exception
        self.assertEqual(error.code, code)
        self.assertTrue(error.body["message"])
        self.assertTrue(error.request_id)
        return error

    def test_bad_requests(self):
        client = self.client()
        bare = lambda body: client.post("/chat/completions", body=body, cast_to=object)
        table = [
            ("missing_messages", {"model": "demo/sim"}, "messages"),
            ("missing_model", {"messages": MESSAGES}, "model"),
            ("invalid_type", {"model": "demo/sim", "messages": "hi"}, "messages"),
            ("invalid_model", {"model": "sim", "messages": MESSAGES}, "model"),
        ]
        for code, body, param in table:
            with self.subTest(code):
                error = self.refused(openai.BadRequestError, code, lambda: bare(body))
                self.assertEqual((error.type, error.param), ("invalid_request_error", param))

    def test_keys(self):
        ask = lambda key, model: self.client(key).chat.completions.create(model=model, messages=MESSAGES)
        error = self.refused(openai.AuthenticationError, "invalid_api_key", lambda: ask("wrong", "demo/sim"))
        self.assertEqual(error.type, "authentication_error")
        denied = lambda: ask(gateway.NARROW_KEY, "demo/told")
        self.refused(openai.PermissionDeniedError, "model_not_allowed", denied)
        self.assertTrue(ask(gateway.NARROW_KEY, "demo/sim").choices)

    def test_unknown_model(self):
        self.refused(openai.NotFoundError, "model_not_found", lambda: self.chat("demo/none"))

    def test_no_backend(self):
        self.refused(openai.InternalServerError, "upstream_unreachable", lambda: self.chat("demo/gone"))

    def test_a_spent_budget_is_not_asked_again(self):
        spend = lambda: self.spend("demo/weekly", retries=2)
        error = self.refused(openai.RateLimitError, "rate_limit_exceeded", spend)
        self.assertEqual(error.response.headers["x-should-retry"], "false")
        self.gateway.access(request_id=error.request_id)
        self.assertEqual(len(self.gateway.accesses(model="demo/weekly", status=429)), 1)

    def test_a_budget_that_comes_back_is_waited_for(self):
        error = self.refused(openai.RateLimitError, "rate_limit_exceeded", lambda: self.spend("demo/brief"))
        self.assertEqual(error.response.headers["retry-after"], "1")
        self.assertTrue(self.chat("demo/brief", max_tokens=16, retries=5).choices)

    def spend(self, model, retries=0):
        for _ in range(100):
            self.chat(model, max_tokens=16, retries=retries)

    def test_upstream_errors_arrive_as_they_are(self):
        for status, kind in ERRORS.items():
            with self.subTest(status=status):
                fault = {"message": f"fault {status}", "type": "a_type", "param": "p", "code": "a_code"}
                name = self.tell([replay.answer({"error": fault}, status)])
                with self.assertRaises(kind) as caught:
                    self.chat("demo/told", [{"role": "user", "content": f"told:{name}"}])
                error = caught.exception
                self.assertEqual((error.status_code, error.body), (status, fault))
                self.assertEqual((error.code, error.param, error.type), ("a_code", "p", "a_type"))
                self.assertTrue(error.request_id)


class Retries(OpenAICase):
    def test_what_is_asked_again(self):
        good = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
        ask = lambda name: self.chat(
            "demo/told", [{"role": "user", "content": f"told:{name}"}], retries=2
        )
        self.check_retries(retry_table({"error": {"message": "no", "type": "t", "code": "c"}}), good, ask)


class Broken(OpenAICase):
    """An upstream that dies in mid-stream is an error to the client, never an end."""

    def chunk(self, **choice):
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}],
        }

    def test_chat(self):
        events = replay.sse([self.chunk(delta={"role": "assistant", "content": "so"}), self.chunk(delta={"content": "far"})])
        for cut in (True, False):
            with self.subTest(cut=cut):
                name = self.tell([replay.answer(events, cut=cut)])
                seen = []
                with self.assertRaises(openai.APIError) as caught:
                    for chunk in self.chat("demo/told", [{"role": "user", "content": f"told:{name}"}], stream=True):
                        seen.append(chunk.choices[0].delta.content)
                self.assertEqual(seen, ["so", "far"])
                self.assertEqual(caught.exception.code, "upstream_disconnected")

    def test_responses(self):
        begun = {"id": "r", "object": "response", "status": "in_progress", "model": "m", "output": []}
        created = {"type": "response.created", "sequence_number": 0, "response": begun}
        place = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
        delta = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "so far", **place}
        events = replay.sse([(event["type"], event) for event in (created, delta)])
        name = self.tell([replay.answer(events, cut=True)])
        seen = []
        with self.assertRaises(openai.APIError) as caught:
            for event in self.client().responses.create(model="demo/told", input=f"told:{name}", stream=True):
                seen.append(event.type)
        self.assertEqual(seen, ["response.created", "response.output_text.delta"])
        self.assertEqual(caught.exception.code, "upstream_disconnected")

    def test_responses_whole(self):
        begun = {"id": "r", "object": "response", "status": "in_progress", "model": "m", "output": []}
        created = {"type": "response.created", "sequence_number": 0, "response": begun}
        name = self.tell([replay.answer(replay.sse([("response.created", created)]))])
        with self.assertRaises(openai.InternalServerError):
            self.client().responses.create(model="demo/told", input=f"told:{name}")

    def test_whole_answers(self):
        name = self.tell([replay.answer({"id": "c", "choices": []}, cut=True)])
        with self.assertRaises(openai.InternalServerError):
            self.chat("demo/told", [{"role": "user", "content": f"told:{name}"}])

    def test_an_error_inside_a_stream(self):
        error = {"error": {"message": "overheated", "type": "server_error", "param": None, "code": "hot"}}
        events = replay.sse([self.chunk(delta={"role": "assistant", "content": "so"}), error])
        name = self.tell([replay.answer(events)])
        with self.assertRaises(openai.APIError) as caught:
            list(self.chat("demo/told", [{"role": "user", "content": f"told:{name}"}], stream=True))
        self.assertEqual((caught.exception.message, caught.exception.code), ("overheated", "hot"))
