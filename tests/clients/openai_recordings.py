"""Recordings of Chat Completions and Responses, seen by the OpenAI client."""

import openai

import gateway
import recorded_cases
from openai_cases import connect


class Recorded(recorded_cases.RecordedCase):
    APIS = ("chat", "responses")

    def ask(self, url, model, each, **more):
        client = connect(url, api_key=gateway.KEY, max_retries=0, timeout=30)
        create = client.chat.completions.create if each.api == "chat" else client.responses.create
        seen = []
        try:
            answer = create(model=model, stream=each.stream, **each.request, **more)
            for event in answer if each.stream else [answer]:
                seen.append(event.model_dump(exclude_unset=True, warnings=False))
        except openai.APIError as error:
            seen.append(error)
        return seen
