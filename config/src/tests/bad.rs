//! Bad configurations and the exact lines they are answered with.

use crate::parse;

/// Checks the errors of a text. Each is a line `LINE:COLUMN: KEY: MESSAGE; REMEDY`.
fn check(text: &str, expected: &str) {
    let errors = parse(text, "f").map_or_else(|errors| errors, |_| Vec::new());
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = expected.lines().map(|line| format!("f:{line}")).collect();
    assert_eq!(lines, expected, "\n{text}");
}

#[test]
fn text_that_is_not_toml() {
    check(
        r#"a = 
b = 1 2
[server]
thread = 4"#,
        r#"1:5: string values must be quoted, expected literal string; correct the TOML here
2:5: string values must be quoted, expected literal string; correct the TOML here
4:1: server.thread: unknown key `thread`; did you mean `threads`?"#,
    );
}

#[test]
fn server() {
    check(
        r#"[sever]
[server]
thread = 4
colour = "red"
drain_timeout_ms = "30s"
threads = -1
upgrade_socket = 5"#,
        r#"1:2: sever: unknown key `sever`; did you mean `server`?
3:1: server.thread: unknown key `thread`; did you mean `threads`?
4:1: server.colour: unknown key `colour`; remove it or use one of: threads, drain_timeout_ms, upgrade_socket, cache_dir
5:20: server.drain_timeout_ms: is of type string; write an integer
6:11: server.threads: -1 is out of range; write a number from 0 to 1024
7:18: server.upgrade_socket: is of type integer; write a string"#,
    );
}

#[test]
fn huge_number_and_duplicate_key() {
    check(
        r#"[server]
threads = 99999999999999999999999999999999999999999999
threads = 5"#,
        r#"2:11: server.threads: 99999999999999999999999999999999999999999999 is out of range; write a number from 0 to 1024
3:1: duplicate key; correct the TOML here"#,
    );
}

#[test]
fn admin_and_log() {
    check(
        r#"server = 5
[admin]
listen = "localhost:9901"
[log]
format = "xml"
level = ""
access = 1"#,
        r#"1:10: server: is of type integer; write a table
3:10: admin.listen: `localhost:9901` is not an address; write an IP address and a port: 127.0.0.1:8080 or [::1]:8080
5:10: log.format: no such value `xml`; use one of: text, json
6:9: log.level: is empty; write a value
7:10: log.access: is of type integer; write true or false"#,
    );
}

#[test]
fn telemetry() {
    check(
        r#"[telemetry]
series_max = 0
[telemetry.otlp]
endpoint = "127.0.0.1:4318"
protocol = "http/json"
headers = { authorization = "" }
resource = { a = 1 }
interval_ms = 1
sample_ratio = 2
trace = true"#,
        r#"2:14: telemetry.series_max: 0 is out of range; write a number from 1 to 10000
4:12: telemetry.otlp.endpoint: `127.0.0.1:4318` is not the URL of a collector; write http://host:port or https://host:port; empty: nothing is sent
5:12: telemetry.otlp.protocol: no such value `http/json`; use one of: http/protobuf, grpc
6:29: telemetry.otlp.headers.authorization: is empty; write a value
7:18: telemetry.otlp.resource.a: is of type integer; write a string
8:15: telemetry.otlp.interval_ms: 1 is out of range; write a number from 100 to 86400000
9:16: telemetry.otlp.sample_ratio: 2 is out of range; write a number from 0 to 1
10:1: telemetry.otlp.trace: unknown key `trace`; did you mean `traces`?"#,
    );
}

#[test]
fn listeners_and_simulators() {
    check(
        r#"[[listeners]]
name = "a"
listen = "127.0.0.1:9901"
[[listeners]]
name = "a"
listen = "127.0.0.1:9902"
tls = { cert = "c" }
[[listeners]]
h2c = "yes"
[[simulators]]
listen = "127.0.0.1:9902"
jitter = 1.5
tokens_per_second = "fast"
slots = 0"#,
        r#"3:10: listeners[0].listen: `127.0.0.1:9901` is the address of admin.listen too; choose another port
5:8: listeners[1].name: two listeners are named `a`; rename one
7:7: listeners[1].tls.key: missing key `key`; add key = "key.pem"
8:1: listeners[2].listen: missing key `listen`; add listen = "127.0.0.1:8080"
8:1: listeners[2].name: missing key `name`; add name = "main"
9:7: listeners[2].h2c: is of type string; write true or false
11:10: simulators[0].listen: `127.0.0.1:9902` is the address of listeners[1].listen too; choose another port
12:10: simulators[0].jitter: 1.5 is out of range; write a number from 0 to 1
13:21: simulators[0].tokens_per_second: is of type string; write a number
14:9: simulators[0].slots: 0 is out of range; write a number from 1 to 1000000"#,
    );
}

#[test]
fn key_tables() {
    check(
        r#"[[key_tables.t.keys]]
id = "a"
key = "x"
[[key_tables.t.keys]]
id = "a"
sha256 = "hunter2"
[[key_tables.t.keys]]
id = "b"
[[key_tables.t.keys]]
id = "c"
key = "x"
sha256 = "37a721706adc5240e60def713f9817d6800983f74ab6c89c32f41c244b29e03f"
priority = -1
[[key_tables.t.keys]]
id = "d"
key = 12345
[[key_tables.t.keys]]
id = "e"
key = "x""#,
        r#"4:1: key_tables.t.keys[1]: two keys have the id `a`; rename one
6:10: key_tables.t.keys[1].sha256: is not a SHA-256: it must be 64 hex digits; take the output of: printf %s KEY | sha256sum
7:1: key_tables.t.keys[2].sha256: `sha256` and `key` are both missing; write one of the two: printf %s KEY | sha256sum gives the sha256
12:10: key_tables.t.keys[3].sha256: `sha256` and `key` are both there; write one of the two: printf %s KEY | sha256sum gives the sha256
13:12: key_tables.t.keys[3].priority: -1 is out of range; write a number from 0 to 4294967295
16:7: key_tables.t.keys[4].key: is of type integer; write a string
17:1: key_tables.t.keys[5]: the key `e` is the same as one before it; remove it or make a new key"#,
    );
}

#[test]
fn filters() {
    check(
        r#"[filters.a]
module = "builtin:auht"
[filters.b]
module = "builtin:auth"
on_error = "allow"
[filters.c]
module = "c.wasm"
role = "auth"
on_error = "allow"
[filters.d]
module = "d.wasm"
on_error = "retry"
config = 5
[filters.d.grants]
key_tables = ["nobody"]
key_sets = ["nobody"]
write_json = ["model"]
read_headers = ["x y", "X-OK", 7]
wasi = "full"
read_bodies = true
[filters.d.limits]
request_ms = 0
memory_bytes = 1
[filters.e]
[filters.f]
module = "builtin:auth"
role = "limit"
[filters."a.b"]
module = "x.wasm"
config = { big = 99999999999999999999, inf = inf }"#,
        r#"2:10: filters.a.module: no built-in filter named `auht`; did you mean `builtin:auth`?
5:12: filters.b.on_error: a filter with the role auth must not allow what it failed to check; use deny or retry-fresh
9:12: filters.c.on_error: a filter with the role auth must not allow what it failed to check; use deny or retry-fresh
12:12: filters.d.on_error: no such value `retry`; use one of: deny, allow, retry-fresh
13:10: filters.d.config: is of type integer; write a table
15:15: filters.d.grants.key_tables[0]: no key table named `nobody`; declare [key_tables.nobody]
16:13: filters.d.grants.key_sets[0]: no key set named `nobody`; declare [key_sets.nobody]
17:15: filters.d.grants.write_json[0]: `model` is not a JSON pointer; write for example "/temperature", or "*" for all
18:17: filters.d.grants.read_headers[0]: `x y` is not a header name; write one name per element, or "*" for all
18:32: filters.d.grants.read_headers[2]: is of type integer; write a string
19:8: filters.d.grants.wasi: no such value `full`; use one of: none, minimal
20:1: filters.d.grants.read_bodies: unknown key `read_bodies`; did you mean `read_body`?
22:14: filters.d.limits.request_ms: 0 is out of range; write a number from 1 to 60000
23:16: filters.d.limits.memory_bytes: 1 is out of range; write a number from 65536 to 1073741824
24:1: filters.e.module: missing key `module`; add module = "builtin:NAME" or the path of a .wasm file
27:8: filters.f.role: `builtin:auth` has the role auth; remove `role`
28:10: filters."a.b": `a.b` is not a name; use 1 to 64 letters, digits, `-` and `_`
30:18: filters."a.b".config.big: 99999999999999999999 is out of range; write a number from -9223372036854775808 to 9223372036854775807
30:46: filters."a.b".config.inf: inf is no number JSON has; write a finite number"#,
    );
}

#[test]
fn pipelines() {
    check(
        r#"[filters.a]
module = "a.wasm"
[pipelines.p]
filters = ["a", "b", "a"]
[pipelines.q]"#,
        r#"4:17: pipelines.p.filters[1]: no filter named `b`; declare [filters.b] or use one of: a
4:22: pipelines.p.filters[2]: names the filter `a` twice; remove one, or declare a second filter with the same module
5:1: pipelines.q.filters: missing key `filters`; add filters = []"#,
    );
}

#[test]
fn clusters() {
    check(
        r#"[clusters.c]
endpoints = ["http://h:80", "h:80", "h", "[::1]:80", "::1:80", "h:0", { address = "h:1", weight = 0 }, { weight = 1 }]
[clusters.d]
endpoints = []
tls = {}
[clusters.e]
endpoints = ["h:1", "h:1"]
api_key = "s"
pass_authorization = true
retry = 1
[clusters.f.health]
path = "health"
[clusters.f.ejection]
max_percent = 101"#,
        r#"2:14: clusters.c.endpoints[0]: `http://h:80` is not host:port; write host:port without a scheme or path; TLS is the key `tls` of the cluster
2:37: clusters.c.endpoints[2]: `h` is not host:port; write host:port without a scheme or path; TLS is the key `tls` of the cluster
2:54: clusters.c.endpoints[4]: `::1:80` is not host:port; write host:port without a scheme or path; TLS is the key `tls` of the cluster
2:64: clusters.c.endpoints[5]: `h:0` is not host:port; write host:port without a scheme or path; TLS is the key `tls` of the cluster
2:99: clusters.c.endpoints[6].weight: 0 is out of range; write a number from 1 to 1000
2:104: clusters.c.endpoints[7].address: missing key `address`; add address = "127.0.0.1:8000"
4:13: clusters.d.endpoints: is empty; name at least one endpoint
5:7: clusters.d.tls.sni: missing key `sni`; add sni = "api.example.com"
7:13: clusters.e.endpoints: names `h:1` twice; remove one; use `weight` for a larger share
9:22: clusters.e.pass_authorization: the caller's key and `api_key` cannot both be sent; remove `pass_authorization` or `api_key`
10:1: clusters.e.retry: unknown key `retry`; remove it or use one of: workers, endpoints, connect_timeout_ms, first_byte_timeout_ms, between_bytes_timeout_ms, write_timeout_ms, idle_timeout_ms, tls, http2, retries, resend, max_wait_ms, api_key, api_key_header, pass_authorization, router_headers, forward_headers, health, ejection, max_concurrency, slow_start_ms
11:11: clusters.f.endpoints: missing key `endpoints`; add endpoints = ["127.0.0.1:8000"], or workers = true
12:8: clusters.f.health.path: `health` is not a path; start it with `/`
14:15: clusters.f.ejection.max_percent: 101 is out of range; write a number from 0 to 100"#,
    );
}

#[test]
fn workers() {
    check(
        r#"[workers]
listen = "50072"
heartbeat_ms = 1
peers = ["gw", "gw:1"]
[[workers.tokens]]
id = "a"
token = "t"
[[workers.tokens]]
id = "a"
function = "f"
token = "t"
sha256 = "t"
[[workers.tokens]]
function = "f"
[clusters.w]
workers = true
resend = "always"
[[routes]]
path_prefix = "/"
cluster = "w"
[[routes]]
path_prefix = "/f"
cluster = "w"
workers_of = "f"
[[routes]]
path_prefix = "/e"
cluster = "e"
workers_of = "f/m"
[clusters.e]
endpoints = ["e:1"]"#,
        r#"2:10: workers.listen: `50072` is not an address; write an IP address and a port: 127.0.0.1:8080 or [::1]:8080
3:16: workers.heartbeat_ms: 1 is out of range; write a number from 50 to 60000
4:10: workers.peers[0]: `gw` is not host:port; write host:port without a scheme or path; TLS is the key `tls` of the cluster
5:1: workers.tokens[0].function: missing key `function`; add function = "the function they serve"
8:1: workers.tokens[1]: two tokens have the id `a`; rename one
8:1: workers.tokens[1]: the token `a` is the same as one before it; remove it or make a new token
12:10: workers.tokens[1].sha256: is not a SHA-256: it must be 64 hex digits; take the output of: printf %s KEY | sha256sum
12:10: workers.tokens[1].sha256: `sha256` and `token` are both there; write one of the two: printf %s TOKEN | sha256sum gives the sha256
13:1: workers.tokens[2].id: missing key `id`; add id = "whose-workers"
13:1: workers.tokens[2].sha256: `sha256` and `token` are both missing; write one of the two: printf %s TOKEN | sha256sum gives the sha256
17:10: clusters.w.resend: no such value `always`; use one of: undelivered, unanswered
20:11: routes[0].cluster: cluster `w` has workers only, which serve models; say which in workers_of = "function/model", or give it endpoints
23:11: routes[1].cluster: cluster `w` has workers only, which serve models; say which in workers_of = "function/model", or give it endpoints
24:14: routes[1].workers_of: `f` does not name a model of a function; write "function/model": the function of the workers' token and a model they register
28:14: routes[2].workers_of: cluster `e` has no workers; give it workers = true, or remove `workers_of`"#,
    );
}

#[test]
fn functions() {
    check(
        r#"[clusters.sim]
endpoints = ["h:1"]
[filters.routing]
module = "builtin:routing-method"
[pipelines.default]
filters = ["routing"]
[functions.demo.models.sim]
cluster = "simm"
routing_method = "meteor"
token_rate_limit = "5-X"
input_token_rate_limit = "1-S,,2-M"
output_token_rate_limit = 5
request_rate_limit = "1-S,2-S"
uris = ["v1"]
[functions.demo.models."meta/llama-3.1"]
cluster = "sim"
routing-method = "random"
[functions."a/b"]
pipeline = "chat"
[functions.other.models.sim]"#,
        r#"8:11: functions.demo.models.sim.cluster: no cluster named `simm`; declare [clusters.simm] or use one of: sim
9:18: functions.demo.models.sim.routing_method: no routing method named `meteor`; use one of: round_robin, random, power_of_two, groq_multiregion, pulsar, pulsar_multiregion; or a routing filter of your own (role = "routing")
10:20: functions.demo.models.sim.token_rate_limit: `5-X` is not <positive integer>-<S|M|H|D|W>; write for example "1000-S,50000-M"
11:26: functions.demo.models.sim.input_token_rate_limit: `1-S,,2-M` has an empty part; write for example "1000-S,50000-M"
12:27: functions.demo.models.sim.output_token_rate_limit: is of type integer; write a string
13:22: functions.demo.models.sim.request_rate_limit: `2-S` repeats a unit of `1-S,2-S`; write for example "1000-S,50000-M"
14:9: functions.demo.models.sim.uris[0]: `v1` is not a path; start it with `/`
17:1: functions.demo.models."meta/llama-3.1".routing-method: unknown key `routing-method`; did you mean `routing_method`?
18:12: functions."a/b": `a/b` is not a name; use printable characters without spaces and without `/`
19:12: functions."a/b".pipeline: no pipeline named `chat`; declare [pipelines.chat] or use one of: default
20:1: functions.other.models.sim.cluster: missing key `cluster`; add cluster = "NAME""#,
    );
}

#[test]
fn functions_without_anything() {
    check(
        r#"[functions.demo.models]
sim = { cluster = "sim" }"#,
        r#"1:12: functions.demo.pipeline: no pipeline named `default`; declare [pipelines.default]
2:19: functions.demo.models.sim.cluster: no cluster named `sim`; declare [clusters.sim]"#,
    );
}

#[test]
fn routes() {
    check(
        r#"[clusters.sim]
endpoints = ["h:1"]
[[routes]]
path_prefix = "/a"
cluster = "sim"
[[routes]]
path_prefix = "/a"
cluster = "sim"
pipeline = "none"
[[routes]]
path_prefix = "/a"
host = "Example.com"
cluster = "other"
[[routes]]
prefix = "b""#,
        r#"7:15: routes[1].path_prefix: two routes have the prefix `/a`; remove one or give it a `host`
9:12: routes[1].pipeline: no pipeline named `none`; declare [pipelines.none]
13:11: routes[2].cluster: no cluster named `other`; declare [clusters.other] or use one of: sim
14:1: routes[3].cluster: missing key `cluster`; add cluster = "NAME"
14:1: routes[3].path_prefix: missing key `path_prefix`; add path_prefix = "/"
15:1: routes[3].prefix: unknown key `prefix`; remove it or use one of: path_prefix, host, cluster, workers_of, pipeline, strip_prefix"#,
    );
}

#[test]
fn limits_and_reload() {
    check(
        r#"[limits]
body_max_bytes = 0
[reload]
poll_ms = 1
history = 1_000_000
rollback_window_ms = 0x10"#,
        r#"2:18: limits.body_max_bytes: 0 is out of range; write a number from 1 to 1073741824
4:11: reload.poll_ms: 1 is out of range; write a number from 10 to 86400000
5:11: reload.history: 1000000 is out of range; write a number from 1 to 1000"#,
    );
}

#[test]
fn own_routing_filter_takes_any_method() {
    check(
        r#"[clusters.sim]
endpoints = ["h:1"]
[filters.mine]
module = "mine.wasm"
role = "routing"
[filters.routing]
module = "builtin:routing-method"
[pipelines.default]
filters = ["mine", "routing"]
[functions.demo.models.sim]
cluster = "sim"
routing_method = "pulsar""#,
        r#""#,
    );
}
