"""A running gateway, with a simulator and a replaying model server behind it."""

import json
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import replay

KEY = "client-suite-key"
# May only call `demo/sim`.
NARROW_KEY = "client-suite-narrow-key"
WAIT_SECONDS = 120
CONFIG = """
[server]
threads = 1
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn,weir::access=info"
format = "json"
[[listeners]]
name = "main"
listen = "127.0.0.1:{port}"
[[simulators]]
listen = "127.0.0.1:{simulator}"
ttft_ms = 0
tokens_per_second = 1000.0
[[key_tables.clients.keys]]
id = "client"
key = "{key}"
[[key_tables.clients.keys]]
id = "narrow"
key = "{narrow_key}"
models = ["demo/sim"]
[filters.auth]
module = "builtin:auth"
config = {{ key_table = "clients", also = ["x-api-key"] }}
grants = {{ read_headers = ["authorization", "x-api-key"], key_tables = ["clients"] }}
[filters.token-limit]
module = "builtin:token-limit"
config = {{ default = "1000000000-S" }}
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
endpoints = ["127.0.0.1:{simulator}"]
[clusters.sim.ejection]
consecutive_failures = 0
[clusters.replay]
endpoints = ["127.0.0.1:{upstream}"]
[clusters.replay.ejection]
consecutive_failures = 0
[clusters.nobody]
endpoints = ["127.0.0.1:{nobody}"]
[clusters.nobody.ejection]
consecutive_failures = 0
[functions.demo.models.sim]
cluster = "sim"
[functions.demo.models.told]
cluster = "replay"
[functions.demo.models.gone]
cluster = "nobody"
# A budget that is spent for the rest of the week, and one that comes back within a second.
[functions.demo.models.weekly]
cluster = "sim"
token_rate_limit = "100-W"
[functions.demo.models.brief]
cluster = "sim"
token_rate_limit = "100-S"
"""
RECORDED = """[functions.recorded.models."{0}"]
cluster = "replay"
"""


class Gateway:
    """Serves the models of CONFIG and `recorded/NAME` for each of `recorded`, which the replaying server must know."""

    def __init__(self, weir, recorded=()):
        self.folder = tempfile.TemporaryDirectory()
        self.upstream = replay.ModelServer()
        port, admin, simulator, nobody = free_ports(4)
        config = pathlib.Path(self.folder.name, "weir.toml")
        text = CONFIG.format(
            port=port,
            admin=admin,
            simulator=simulator,
            upstream=self.upstream.port,
            nobody=nobody,
            key=KEY,
            narrow_key=NARROW_KEY,
        )
        config.write_text(text + "".join(RECORDED.format(name) for name in recorded), encoding="utf-8")
        self.url = f"http://127.0.0.1:{port}"
        self.upstream_url = f"http://127.0.0.1:{self.upstream.port}"
        self.simulator_url = f"http://127.0.0.1:{simulator}"
        self.log = pathlib.Path(self.folder.name, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [weir, "run", "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.wait_until_ready(f"http://127.0.0.1:{admin}/readyz")
        except BaseException:
            self.close()
            raise

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.upstream.close()
        self.folder.cleanup()

    def environment(self):
        """What suites in other languages know of it."""
        return {
            "WEIR_URL": self.url,
            "WEIR_UPSTREAM_URL": self.upstream_url,
            "WEIR_SIMULATOR_URL": self.simulator_url,
            "WEIR_KEY": KEY,
            "WEIR_NARROW_KEY": NARROW_KEY,
        }

    def accesses(self, **wanted):
        """Fields of the access log's lines so far that have these values."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line) if line.startswith("{") else {}
            fields = {**fields, **fields.get("fields", {})}
            if all(fields.get(name) == value for name, value in wanted.items()):
                found.append(fields)
        return found

    def access(self, **wanted):
        """The one line with these values, as soon as it is there."""
        return wait_for(lambda: (self.accesses(**wanted) or [None])[-1], f"a line of the access log with {wanted}")

    def simulated(self):
        """What the simulator has counted."""
        with urllib.request.urlopen(f"{self.simulator_url}/sim/stats", timeout=5) as stats:
            return json.load(stats)

    def wait_until_ready(self, url):
        def ready():
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None:
                    raise RuntimeError(f"the gateway ended:\n{self.log.read_text()}") from None
                return False

        wait_for(ready, "a ready gateway")


def wait_for(look, what):
    """Looks until there is something to see."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {WAIT_SECONDS} s in vain for {what}")
        time.sleep(0.01)


def free_ports(count):
    """Ports that were free together a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
