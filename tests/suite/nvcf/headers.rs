//! 1.4: which headers pass, which way.

use http::Request;
use weir_tests::caller::{Body, chat, with_header};
use weir_tests::upstream::{answer, completion};

use super::recorder::Seen;
use super::row::{PATHS, Row, call, holds, recorded, refused, row, same, served, walk, walk_http2};

/// What a caller may not tell those behind the gateway: 1.4's list of what ingresses must strip.
static INTERNAL: [&str; 13] = [
    "x-routing-key",
    "x-model",
    "x-routing-method",
    "x-input-tokens",
    "x-token-estimate",
    "x-cache-affinity-key",
    "x-request-slo-ms",
    "x-max-wait-ms",
    "x-stargate-max-wait-ms",
    "x-stargate-last-cluster-id",
    "x-inference-server-id",
    "x-inference-server-url",
    "x-weir-anything",
];

fn with(mut request: Request<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request = with_header(request, name, Some(value));
    }
    request
}

#[tokio::test]
async fn on_the_way_in() {
    let (gateway, recorder) = recorded(|config| config).await;
    let mut rows = Vec::new();
    for path in PATHS {
        rows.extend(inwards(path));
    }
    rows.extend(ids());
    let host = recorder.address().to_string();
    rows.push(
        served("1.4 the host is the model server's", chat(""))
            .seen(move |seen| same("host", &seen.header("host").unwrap_or_default(), &host)),
    );
    walk(&gateway, &recorder, rows).await;
}

fn inwards(path: &'static str) -> Vec<Row> {
    let mut headers: Vec<(&str, &str)> = INTERNAL.map(|name| (name, "1")).into();
    headers.extend([
        ("cookie", "session=1"),
        ("x-api-key", "secret"),
        ("proxy-authorization", "Basic eDp5"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("accept-encoding", "gzip"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
    ]);
    let internal = served(
        format!("1.4, 9 #7 {path}: a caller cannot speak for the gateway"),
        with(call(path, ""), &headers),
    );
    let internal = internal
        .saw_no_headers(&INTERNAL)
        .saw_no_headers(&[
            "cookie",
            "x-api-key",
            "proxy-authorization",
            "authorization",
            "keep-alive",
            "te",
            "upgrade",
            "x-private",
        ])
        // The answer is read on its way: it must not come compressed.
        .seen(|seen| {
            let coding = seen.header("accept-encoding");
            let plain = coding.as_deref().is_none_or(|coding| coding == "identity");
            holds(plain, &format!("accept-encoding: {coding:?} upstream"))?;
            let connection = seen.header("connection").unwrap_or_default();
            holds(
                !connection.contains("x-private"),
                &format!("connection: {connection} upstream"),
            )
        });
    let callers = [
        ("user-agent", "tester/1"),
        ("tracestate", "a=b"),
        ("baggage", "c=d"),
        ("x-request-id", "mine-1"),
        ("openai-beta", "v2"),
        ("openai-organization", "org"),
        ("idempotency-key", "once"),
        ("accept", "application/json"),
    ];
    let passing = served(
        format!("1.4 {path}: what is the caller's goes on"),
        with(call(path, ""), &callers),
    );
    let passing = callers
        .into_iter()
        .chain([("content-type", "application/json")])
        .fold(passing, |row, (name, value)| row.saw_header(name, value))
        .header("x-request-id", "mine-1");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = served(
        format!("1.4 {path}: traces are joined"),
        with(call(path, ""), &[("traceparent", trace)]),
    );
    let traced = traced.seen(|seen| {
        let joined = seen.header("traceparent").unwrap_or_default();
        let parts: Vec<&str> = joined.split('-').collect();
        same(
            "the trace",
            &parts.get(1).copied(),
            &Some("0af7651916cd43dd8448eb211c80319c"),
        )?;
        holds(
            parts.get(2) != Some(&"b7ad6b7169203331"),
            "no span of its own",
        )
    });
    let regions = [
        ("x-nvcf-target-region", "eu", "eu"),
        ("x-groq-region", "us", "us"),
    ];
    let regions = regions.map(|(name, value, expected)| {
        let request = with(call(path, ""), &[(name, value)]);
        served(format!("1.4 {path}: {name} in both spellings"), request)
            .saw_header("x-nvcf-target-region", expected)
            .saw_header("x-groq-region", expected)
    });
    let unknown = served(
        format!("1.4 {path}: a header no API knows stays here"),
        with(
            call(path, ""),
            &[("x-custom", "1"), ("x-forwarded-for", "1.2.3.4")],
        ),
    );
    let unknown = unknown.saw_no_headers(&["x-custom", "x-forwarded-for"]);
    let mut rows = vec![internal, passing, traced, unknown];
    rows.extend(reserved(path));
    rows.extend(regions);
    rows
}

fn reserved(path: &'static str) -> [Row; 3] {
    let priority = refused(
        format!("1.4 {path}: X-Priority is the gateway's"),
        with(call(path, ""), &[("x-priority", "0")]),
        400,
        "reserved_header",
    )
    .says("X-Priority is a reserved header and cannot be set by the client");
    let empty = refused(
        format!("1.4 {path}: its presence alone is refused"),
        with(call(path, ""), &[("x-priority", "")]),
        400,
        "reserved_header",
    );
    let stranger = refused(
        format!("1.1 {path}: authorization comes before reserved headers"),
        with_header(
            with(call(path, ""), &[("x-priority", "0")]),
            "authorization",
            None,
        ),
        401,
        "missing_api_key",
    );
    [priority, empty, stranger]
}

fn ids() -> Vec<Row> {
    let is_new = |row: Row| {
        row.check(|done| {
            let id = done.answer.header("x-request-id");
            let is_v4 = id.len() == 36 && id.as_bytes().get(14) == Some(&b'4');
            holds(is_v4, &format!("x-request-id is {id:?}"))?;
            let seen = done
                .seen
                .first()
                .and_then(|seen| seen.header("x-request-id"));
            same("x-request-id upstream", &seen.as_deref(), &Some(id))
        })
    };
    vec![
        is_new(served(
            "1.4 a request without an id gets a UUID v4",
            chat(""),
        )),
        is_new(served(
            "1.4 an id that is not printable is replaced",
            with(chat(""), &[("x-request-id", "a b")]),
        )),
        served(
            "1.4 the model server's id is not the caller's",
            with(chat(""), &[("x-request-id", "mine-2")]),
        )
        .upstream(with_lines("x-request-id: theirs\r\n"))
        .header("x-request-id", "mine-2"),
        row(
            "1.4 errors of the model server carry the id too",
            with(chat(""), &[("x-request-id", "mine-3")]),
        )
        .upstream(answer("422 Unprocessable Entity", "application/json", "{}"))
        .status(422)
        .header("x-request-id", "mine-3"),
    ]
}

/// A chat completion with further header lines.
fn with_lines(lines: &str) -> String {
    let answer = answer("200 OK", "application/json", &completion("ok"));
    answer.replacen("\r\n", &format!("\r\n{lines}"), 1)
}

#[tokio::test]
async fn on_the_way_out() {
    let (gateway, recorder) = recorded(|config| config).await;
    walk(&gateway, &recorder, outwards()).await;
    walk_http2(&gateway, &recorder, outwards()).await;
}

fn outwards() -> Vec<Row> {
    let lines: String = INTERNAL
        .iter()
        .chain(&[
            "x-stargate-cluster-id",
            "x-private",
            "keep-alive",
            "x-priority",
        ])
        .map(|name| format!("{name}: 1\r\n"))
        .collect();
    let own = "x-kept: 1\r\nretry-after: 7\r\nopenai-processing-ms: 5\r\n";
    let head = format!("{lines}{own}connection: x-private\r\n");
    vec![
        served(
            "1.4 what routers and workers say among themselves stays inside",
            chat(""),
        )
        .upstream(with_lines(&head))
        .no_headers(&INTERNAL)
        .no_headers(&[
            "x-stargate-cluster-id",
            "x-priority",
            "x-private",
            "keep-alive",
        ]),
        served("1.4 what is the model server's own comes through", chat(""))
            .upstream(with_lines(own))
            .header("x-kept", "1")
            .header("retry-after", "7")
            .header("openai-processing-ms", "5")
            .header("content-type", "application/json"),
    ]
}

const ROUTED: &str = r#"
router_headers = true
forward_headers = ["*"]
"#;
const VIP: &str = r#"
[[key_tables.demo.keys]]
id = "vip"
key = "vip-key"
tenant = "demo"
priority = 7
"#;

/// What a request router behind the gateway is told, by the gateway alone.
#[tokio::test]
async fn to_a_router() {
    let (gateway, recorder) = recorded(|config| {
        let method = r#"routing_method = "power_of_two""#;
        config.cluster(ROUTED).model(method).more(VIP)
    })
    .await;
    let vip = |request| with_header(request, "authorization", Some("Bearer vip-key"));
    let lies = INTERNAL.map(|name| (name, "a-lie"));
    let mut rows: Vec<Row> = PATHS
        .map(|path| {
            let request = vip(with(call(path, r#""max_output_tokens":50"#), &lies));
            told(path, request, if path == "/v1/responses" { 50 } else { 0 })
        })
        .into();
    rows.push(
        served(
            "1.4 a header that the config lets through",
            with(chat(""), &[("x-custom", "1")]),
        )
        .saw_header("x-custom", "1"),
    );
    rows.push(
        served(
            "1.4 the config lets no credential through",
            with(chat(""), &[("x-api-key", "1"), ("cookie", "a=b")]),
        )
        .saw_no_headers(&["x-api-key", "cookie", "authorization"]),
    );
    walk(&gateway, &recorder, rows).await;
}

/// The estimate holds `output` tokens beyond the input.
fn told(path: &str, request: Request<Body>, output: u64) -> Row {
    let number = |seen: &Seen, name: &str| -> Result<u64, String> {
        let text = seen.header(name).unwrap_or_default();
        text.parse()
            .map_err(|_| format!("{name} is {text:?} upstream"))
    };
    served(
        format!("1.4 {path}: what the gateway tells a router"),
        request,
    )
    .saw_header("x-routing-key", "demo")
    .saw_header("x-model", "sim")
    .saw_header("x-routing-method", "power_of_two")
    .saw_header("x-priority", "7")
    .saw_no_headers(&[
        "x-request-slo-ms",
        "x-max-wait-ms",
        "x-stargate-max-wait-ms",
    ])
    .seen(move |seen| {
        let (input, estimate) = (
            number(seen, "x-input-tokens")?,
            number(seen, "x-token-estimate")?,
        );
        holds(input > 0, "no input")?;
        same("x-token-estimate upstream", &estimate, &(input + output))
    })
}
