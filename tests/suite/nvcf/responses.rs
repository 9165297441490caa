//! 1.7: responses, always streamed by the model server.

use super::recorder::{json_answer, responses_events, stream, terminal};
use super::row::{Row, call, recorded, refused, row, same, served, walk};
use weir_tests::caller::post;

const PATH: &str = "/v1/responses";
const NO_END: &str = "responses proxy stream ended without a terminal response event";

#[tokio::test]
async fn one_answer() {
    let (gateway, recorder) = recorded(|config| config.cluster("retries = 0")).await;
    let mut rows: Vec<Row> = ["completed", "failed", "incomplete"]
        .map(|status| {
            served(
                format!("1.7 the object of response.{status}"),
                call(PATH, ""),
            )
            .upstream(stream(&responses_events(status)))
            .saw_path(PATH)
            .saw("/stream", true)
            .header("content-type", "application/json")
            .check(move |done| {
                let mut expected = terminal(status);
                expected["model"] = "demo/sim".into();
                same("the body", &done.answer.json(), &expected)
            })
        })
        .into();
    rows.extend([
        served(
            "1.7 `stream` false is a stream upstream too",
            call(PATH, r#""stream":false"#),
        )
        .saw("/stream", true)
        .told("/object", "response"),
        served(
            "1.7 nothing but the model and `stream` is edited",
            call(PATH, r#""metadata":{"a":"b"},"store":false"#),
        )
        .saw("/metadata/a", "b")
        .saw("/store", false)
        .saw("/input", "hi"),
        served(
            "1.7 previous_response_id goes on",
            call(PATH, r#""previous_response_id":"resp-0""#),
        )
        .saw("/previous_response_id", "resp-0"),
        row("1.7 a stream without a terminal event", call(PATH, ""))
            .upstream(stream(&responses_events("")))
            .status(502)
            .says(NO_END)
            .told("/error/type", "server_error"),
        row("1.7 a stream without any event", call(PATH, ""))
            .upstream(stream(""))
            .status(502)
            .says(NO_END),
    ]);
    let said =
        r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"x"}}"#;
    for (status, line) in [
        (400, "400 Bad Request"),
        (429, "429 Too Many Requests"),
        (500, "500 Internal Server Error"),
    ] {
        rows.push(
            row(
                format!("1.7 {status} of the model server comes through"),
                call(PATH, ""),
            )
            .upstream(json_answer(line, said))
            .status(status)
            .check(move |done| same("the body", &done.answer.text().as_str(), &said)),
        );
    }
    walk(&gateway, &recorder, rows).await;
}

#[tokio::test]
async fn a_stream() {
    let (gateway, recorder) = recorded(|config| config).await;
    let streamed = r#""stream":true"#;
    let rows = vec![
        served(
            "1.7 events come through as they are but for the model",
            call(PATH, streamed),
        )
        .upstream(stream(&responses_events("completed")))
        .saw("/stream", true)
        .header("content-type", "text/event-stream")
        .check(|done| {
            let theirs = responses_events("completed");
            let expected = theirs.replace(r#""model":"sim""#, r#""model":"demo/sim""#);
            same("the body", &done.answer.text(), &expected)
        }),
        served(
            "1.7 no [DONE]: the terminal event is the end",
            call(PATH, streamed),
        )
        .no_text("[DONE]"),
        row(
            "9 #2 a stream without a terminal event",
            call(PATH, streamed),
        )
        .upstream(stream(&responses_events("")))
        .status(200)
        .events(|events| {
            let last = events.last().ok_or("no events")?;
            same("the last event", &last.name.as_str(), &"error")?;
            same(
                "the code",
                &last.json()["code"],
                &"upstream_disconnected".into(),
            )
        }),
    ];
    walk(&gateway, &recorder, rows).await;
}

/// The ranges, in the documented words.
#[tokio::test]
async fn what_is_refused() {
    let (gateway, recorder) = recorded(|config| config).await;
    let mut rows = Vec::new();
    for (member, values, reason) in [
        (
            "temperature",
            &["-0.1", "2.1", "1e9"][..],
            "must be between 0 and 2",
        ),
        ("top_p", &["-0.1", "1.1"], "must be between 0 and 1"),
        ("max_tool_calls", &["0", "101"], "must be between 1 and 100"),
        ("top_logprobs", &["-1", "21"], "must be between 0 and 20"),
        (
            "service_tier",
            &[r#""best""#, r#""priority""#],
            "must be one of: auto, default, flex",
        ),
        (
            "truncation",
            &[r#""some""#],
            "must be one of: auto, disabled",
        ),
    ] {
        for value in values {
            let row = refused(
                format!("1.7 {member}: {value}"),
                call(PATH, &format!(r#""{member}":{value}"#)),
                400,
                "invalid_value",
            );
            rows.push(
                row.says(format!("`{member}`: {reason}"))
                    .told("/error/param", member),
            );
        }
    }
    for (member, values) in [
        ("temperature", &["0", "2", "1.5", "null"][..]),
        ("top_p", &["0", "1", "null"]),
        ("max_tool_calls", &["1", "100", "null"]),
        ("top_logprobs", &["0", "20", "null"]),
        (
            "service_tier",
            &[r#""auto""#, r#""default""#, r#""flex""#, "null"],
        ),
        ("truncation", &[r#""auto""#, r#""disabled""#, "null"]),
    ] {
        for value in values {
            let expected: serde_json::Value = serde_json::from_str(value).unwrap();
            let request = call(PATH, &format!(r#""{member}":{value}"#));
            let row = served(format!("1.7 {member}: {value} is allowed"), request);
            rows.push(row.seen(move |seen| same(member, &seen.json()[member], &expected)));
        }
    }
    let input = "`input`: must be string or array of input items";
    for value in ["5", "{}", "true", "[1]", r#"["a"]"#] {
        let body = format!(r#"{{"model":"demo/sim","input":{value}}}"#);
        let row = refused(
            format!("1.7 input: {value}"),
            post(PATH, body),
            400,
            "invalid_type",
        );
        rows.push(row.says(input).told("/error/param", "input"));
    }
    for (what, body) in [
        ("no model", r#"{"input":"hi"}"#),
        ("an empty model", r#"{"model":"","input":"hi"}"#),
    ] {
        let row = refused(
            format!("1.7 {what}"),
            post(PATH, body),
            400,
            "missing_model",
        );
        rows.push(
            row.says("`model`: is required")
                .told("/error/param", "model"),
        );
    }
    let items = r#"{"model":"demo/sim","input":[{"role":"user","content":"hi"}]}"#;
    rows.push(served("1.7 an array of items", post(PATH, items)).saw("/input/0/role", "user"));
    walk(&gateway, &recorder, rows).await;
}
