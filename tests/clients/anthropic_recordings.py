"""Recordings of Messages, seen by the Anthropic client."""

import anthropic

import gateway
import recorded_cases
from anthropic_cases import connect


class Recorded(recorded_cases.RecordedCase):
    APIS = ("messages",)

    def ask(self, url, model, each):
        client = connect(url, api_key=gateway.KEY, max_retries=0, timeout=30)
        request = dict(each.request)
        messages, max_tokens = request.pop("messages"), request.pop("max_tokens")
        seen = []
        try:
            # Each version knows other members by name.
            answer = client.messages.create(
                model=model, messages=messages, max_tokens=max_tokens, stream=each.stream, extra_body=request
            )
            for event in answer if each.stream else [answer]:
                seen.append(event.model_dump(exclude_unset=True, warnings=False))
        except anthropic.APIError as error:
            seen.append(error)
        return seen
