"""Recorded answers of providers, from the JSON files of the folder that WEIR_CASES names; without it there are none.

A file holds `cases`, each with `id`, `provider_api`, `stream`, `upstream_response` (JSON, or `{"sse": TEXT}`),
`semantic.usage`, and where it is known `client_request`.
"""

import dataclasses
import functools
import json
import os
import pathlib

import replay

APIS = {"openai.chat": "chat", "openai.responses": "responses", "anthropic.messages": "messages"}
FOLDER = "WEIR_CASES"
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@dataclasses.dataclass(frozen=True)
class Recording:
    name: str
    api: str
    stream: bool
    # JSON, or the text of the events.
    body: object
    status: int
    # The request it answers, without `model` and `stream`.
    request: dict
    # (input, output), `None` where the provider tells nothing.
    usage: tuple | None

    def told(self):
        return replay.answer(self.body, self.status)

    def events(self):
        """The data of the stream's events, without the end mark."""
        return [json.loads(data) for data in event_data(self.body) if data != "[DONE]"]

    def is_whole(self):
        """Whether the stream ends by the rules of its API. Some were recorded in part."""
        if not self.stream:
            return True
        events = self.events()
        if self.api == "chat":
            finished = any(choice.get("finish_reason") for event in events for choice in event.get("choices", ()))
            return finished or "[DONE]" in event_data(self.body)
        ends = TERMINAL if self.api == "responses" else ("message_stop",)
        return any(event.get("type") in (*ends, "error") for event in events)

    def is_several(self):
        """Whether answers were recorded one behind the other: their usage is not that of one exchange."""
        return self.stream and sum(event.get("type") in ("message_stop", *TERMINAL) for event in self.events()) > 1

    def final_response(self):
        """What a caller of Responses who wants no stream gets for this one."""
        found = [event["response"] for event in self.events() if event.get("type") in TERMINAL]
        return found[0] if found else None


@functools.cache
def all_recordings():
    folder = os.environ.get(FOLDER)
    if not folder:
        return ()
    found = []
    for file in sorted(pathlib.Path(folder).glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        found += [recording(case) for case in told["cases"] if case["provider_api"] in APIS]
        found += [recording({**case, "stream": False}, 400) for case in told.get("error_bodies", ()) if case["provider_api"] in APIS]
    if not found:
        raise ValueError(f"{FOLDER}={folder} holds no recordings")
    return tuple(found)


def recording(case, status=200):
    api = APIS[case["provider_api"]]
    answer = case["upstream_response"]
    request = dict(case.get("client_request") or standing_request(api))
    request.pop("model", None)
    request.pop("stream", None)
    return Recording(
        name=case["id"],
        api=api,
        stream=case["stream"],
        body=answer["sse"] if case["stream"] else answer,
        status=case.get("upstream_status", status),
        request=request,
        usage=usage((case.get("semantic") or {}).get("usage")),
    )


def standing_request(api):
    """In the place of a request that was not recorded."""
    if api == "responses":
        return {"input": "hi"}
    request = {"messages": [{"role": "user", "content": "hi"}]}
    return {**request, "max_tokens": 1024} if api == "messages" else request


def usage(told):
    if told is None:
        return None
    if "input_total" in told:
        return told["input_total"], told["output"]
    return told["input_uncached"] + told["cache_read"] + told["cache_write"], told["output"]


def event_data(text):
    """The data of each event; all of the recordings have it in one line."""
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


def listing(recorded, folder):
    """A file for suites in other languages: what they ask, and how to tell whether the answer is whole."""
    file = pathlib.Path(folder, "recordings.json")
    listed = [
        {"name": each.name, "api": each.api, "stream": each.stream, "request": each.request, "whole": each.is_whole()}
        for each in recorded
    ]
    file.write_text(json.dumps(listed), encoding="utf-8")
    return str(file)
