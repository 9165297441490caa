"""What the suites of all Python clients share: one gateway for all tests, and the table of retries."""

import itertools
import unittest

import gateway
import replay

TOOL_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Case(unittest.TestCase):
    """A test against the one gateway of the run."""

    gateway: gateway.Gateway
    numbers = itertools.count()

    def tell(self, answers):
        """A name under which the replaying model server gives these answers in turn."""
        name = f"case-{next(self.numbers)}"
        self.gateway.upstream.tell(name, answers)
        return name

    def until_cancelled(self, aborts_before):
        """Waits until the gateway has left the simulator, which was in the middle of an answer."""

        def cancelled():
            stats = self.gateway.simulated()
            return stats["client_aborts"] == aborts_before + 1 and stats["active"] == 0

        gateway.wait_for(cancelled, "the upstream to be cancelled")

    def check_retries(self, table, good, ask):
        """`ask` is made with two retries, by a client that gets the answers of a row and then `good`."""
        for title, answers, requests, pauses in table:
            with self.subTest(title):
                name = self.tell([*answers, replay.answer(good)])
                if requests <= len(answers):
                    with self.assertRaises(Exception):
                        ask(name)
                else:
                    ask(name)
                seen = self.gateway.upstream.seen(name)
                self.assertEqual(len(seen), requests)
                for pause, (one, other) in zip(pauses, zip(seen, seen[1:])):
                    # Only a lower bound: it is longer than what the client waits of its own accord.
                    self.assertGreaterEqual(other["at"] - one["at"], pause)


def retry_table(fault):
    """Rows of (title, answers, requests that arrive upstream, least seconds between them)."""
    soon = {"retry-after-ms": "1"}
    rows = [
        (f"{status} twice", [replay.answer(fault, status, soon)] * 2, 3, [])
        for status in (408, 409, 429, 500, 502, 503, 504, 529)
    ]
    rows += [(f"{status} for ever", [replay.answer(fault, status, soon)] * 9, 3, []) for status in (429, 503)]
    rows += [(f"{status} is final", [replay.answer(fault, status, soon)], 1, []) for status in (400, 401, 403, 404, 422)]
    stop = {"x-should-retry": "false", **soon}
    rows.append(("x-should-retry: false", [replay.answer(fault, 429, stop)], 1, []))
    force = {"x-should-retry": "true", **soon}
    rows.append(("x-should-retry: true", [replay.answer(fault, 400, force)], 2, []))
    later = [replay.answer(fault, 429, {"retry-after": "1"}), replay.answer(fault, 503, {"retry-after-ms": "1100"})]
    rows.append(("retry-after and retry-after-ms", later, 3, [0.99, 1.09]))
    return rows
