//! Admissions and refusals of a scripted control plane.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use prost::Message as _;
use weir_sdk::http_client::Response;
use weir_sdk::testing::{self, Exchange};
use weir_sdk::{Authorize as _, Decision, Failure, Principal};

use super::message::{AuthLlmInvokeRequest, AuthLlmInvokeResponse, ModelSpec};
use crate::Auth;

const CONFIG: &str =
    r#"{"nvcf":{"cluster":"plane","ttl_seconds":60,"stale_seconds":120},"also":["x-key"]}"#;

fn exchange() -> (Exchange, Auth) {
    let mut exchange = Exchange::new()
        .model("fn-1", "llama")
        .header("authorization", "Bearer secret-credential");
    let auth = exchange.run(|| testing::filter(CONFIG));
    (exchange, auth.unwrap_or_else(|errors| panic!("{errors:?}")))
}

fn admission() -> AuthLlmInvokeResponse {
    AuthLlmInvokeResponse {
        routing_key: "fn-1".to_owned(),
        client_auth_subject: "alice".to_owned(),
        auth_context: BTreeMap::from([("ncaId".to_owned(), "acme".to_owned())]),
        ..AuthLlmInvokeResponse::default()
    }
}

fn answer(message: &[u8], headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> Response {
    let owned = |pairs: &[(&str, &str)]| {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        pairs.iter().map(owned).collect()
    };
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    Response {
        status: 200,
        headers: owned(headers),
        body,
        trailers: owned(trailers),
    }
}

fn admits(admission: &AuthLlmInvokeResponse) -> Result<Response, Failure> {
    Ok(answer(
        &admission.encode_to_vec(),
        &[],
        &[("grpc-status", "0")],
    ))
}

fn refuses(status: &str) -> Result<Response, Failure> {
    let mut refusal = answer(&[], &[("grpc-status", status)], &[]);
    refusal.body.clear();
    Ok(refusal)
}

fn decide(exchange: &mut Exchange, auth: &Auth) -> Decision {
    let view = exchange.view();
    exchange.run(|| auth.authorize(view))
}

/// The subject let in, or the status and text of the refusal.
fn said(decision: &Decision) -> String {
    match decision {
        Decision::Allow(principal) | Decision::AllowWith((principal, _)) => {
            format!("allow {}", principal.subject)
        }
        Decision::Deny(refused) => format!("{} {}", refused.status, refused.message),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_call_is_the_documented_one() {
    let (mut exchange, auth) = exchange();
    exchange.push_answer(admits(&admission()));
    let decided = decide(&mut exchange, &auth);
    assert_eq!(decided, Decision::Allow(Principal::new("alice", "acme")));
    let (cluster, request) = &exchange.sent()[0];
    assert_eq!(cluster, "plane");
    assert_eq!(
        request.path_and_query,
        "/llm_gateway.LlmGateway/AuthLlmInvocation"
    );
    assert!(
        request
            .headers
            .contains(&("grpc-timeout".to_owned(), b"2000m".to_vec()))
    );
    assert!(request.tls_only);
    assert_eq!(request.timeout_ms, 2_000);
    // Field 1, 17 bytes; field 2, 4 bytes.
    let message = AuthLlmInvokeRequest::decode(&request.body[5..]).unwrap();
    assert_eq!(message.client_authorization_token, "secret-credential");
    assert_eq!(message.routing_key, "fn-1");
    assert_eq!(&request.body[..7], [0, 0, 0, 0, 25, 0x0a, 17]);
    let share = request.share.as_deref().unwrap();
    assert!(
        share.ends_with(" fn-1") && !share.contains("secret"),
        "{share}"
    );
}

#[test]
fn admissions_become_principals() {
    let table: [(
        &[(&str, &str)],
        &str,
        Option<u32>,
        Result<(&str, &str), &str>,
    ); 8] = [
        (&[("ncaId", "acme")], "alice", None, Ok(("alice", "acme"))),
        (&[("ncaId", "acme")], "", Some(0), Ok(("acme", "acme"))),
        (
            &[("ncaId", "a"), ("projectId", "p")],
            "s",
            Some(7),
            Ok(("s", "a/p")),
        ),
        (
            &[("ncaId", "a"), ("projectID", "p")],
            "s",
            None,
            Ok(("s", "a/p")),
        ),
        (
            &[("ncaId", "a"), ("project_id", "p")],
            "s",
            None,
            Ok(("s", "a/p")),
        ),
        (
            &[("ncaId", "a"), ("project_id", "")],
            "s",
            None,
            Ok(("s", "a")),
        ),
        (
            &[("ncaId", "")],
            "s",
            None,
            Err("502 authentication failed"),
        ),
        (
            &[("projectId", "p")],
            "s",
            None,
            Err("502 authentication failed"),
        ),
    ];
    for (context, subject, priority, expected) in table {
        let (mut exchange, auth) = exchange();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        exchange.push_answer(admits(&AuthLlmInvokeResponse {
            client_auth_subject: subject.to_owned(),
            auth_context: context.iter().map(owned).collect(),
            priority,
            ..admission()
        }));
        let decided = decide(&mut exchange, &auth);
        match expected {
            Ok((subject, tenant)) => {
                let mut principal = Principal::new(subject, tenant);
                principal.priority = priority;
                assert_eq!(decided, Decision::Allow(principal));
            }
            Err(expected) => assert_eq!(said(&decided), expected, "{context:?}"),
        }
    }
}

#[test]
fn an_answer_for_another_function_or_none_at_all_admits_nobody() {
    let other = AuthLlmInvokeResponse {
        routing_key: "fn-2".to_owned(),
        ..admission()
    };
    let two = [admission().encode_to_vec(), vec![0xff; 3]].concat();
    let grpc = [("grpc-status", "0")];
    let mut cut = answer(&admission().encode_to_vec(), &[], &grpc);
    cut.body.truncate(9);
    for nonsense in [
        admits(&other),
        admits(&AuthLlmInvokeResponse::default()),
        Ok(answer(&two, &[], &grpc)),
        Ok(answer(&admission().encode_to_vec(), &[], &[])),
        Ok(cut),
        Err(Failure::TooLarge),
    ] {
        let (mut exchange, auth) = exchange();
        exchange.push_answer(nonsense);
        let decided = decide(&mut exchange, &auth);
        assert_eq!(said(&decided), "502 authentication failed");
    }
}

#[test]
fn admissions_count_for_a_minute_and_longer_only_while_the_service_is_silent() {
    let (mut exchange, auth) = exchange();
    let mut step = |after_ms: u64, answer: Option<Result<Response, Failure>>| {
        exchange.advance_ms(after_ms);
        let sent = exchange.sent().len();
        let asks = answer.is_some();
        answer
            .into_iter()
            .for_each(|answer| exchange.push_answer(answer));
        let decided = said(&decide(&mut exchange, &auth));
        assert_eq!(exchange.sent().len() > sent, asks, "{decided}");
        decided
    };
    assert_eq!(step(0, Some(admits(&admission()))), "allow alice");
    assert_eq!(step(59_999, None), "allow alice");
    // The minute counts from the answer, not from the last use.
    let renamed = AuthLlmInvokeResponse {
        client_auth_subject: "alice-2".to_owned(),
        ..admission()
    };
    assert_eq!(step(1, Some(admits(&renamed))), "allow alice-2");
    assert_eq!(step(60_000, Some(Err(Failure::Timeout))), "allow alice-2");
    assert_eq!(step(0, Some(Err(Failure::Unavailable))), "allow alice-2");
    assert_eq!(step(0, Some(refuses("14"))), "allow alice-2");
    assert_eq!(step(0, Some(refuses("4"))), "allow alice-2");
    // What it says counts at once, and what counted before does not come back.
    assert_eq!(step(0, Some(refuses("7"))), "403 permission denied");
    assert_eq!(
        step(0, Some(Err(Failure::Unavailable))),
        "503 authentication service unavailable"
    );
    // Refusals are asked for again.
    assert_eq!(step(0, Some(refuses("16"))), "401 authentication failed");
    assert_eq!(step(0, Some(admits(&admission()))), "allow alice");
    // Sixty and a hundred and twenty seconds, and no more.
    assert_eq!(step(179_999, Some(Err(Failure::Timeout))), "allow alice");
    assert_eq!(
        step(1, Some(Err(Failure::Timeout))),
        "504 authentication timed out"
    );
}

#[test]
fn admissions_are_for_one_credential_and_one_function() {
    let (mut exchange, auth) = exchange();
    exchange.push_answer(admits(&admission()));
    assert_eq!(said(&decide(&mut exchange, &auth)), "allow alice");
    let mut other = exchange.model("fn-2", "llama");
    other.push_answer(refuses("7"));
    assert_eq!(said(&decide(&mut other, &auth)), "403 permission denied");
    other.set_header("authorization", "Bearer another");
    let mut back = other.model("fn-1", "llama");
    back.push_answer(refuses("16"));
    assert_eq!(said(&decide(&mut back, &auth)), "401 authentication failed");
}

#[test]
fn what_it_says_of_the_model_holds() {
    let spec = |uris: &[&str], settings: [Option<&str>; 4]| {
        let [tokens, method, input, output] = settings.map(|text| text.map(str::to_owned));
        ModelSpec {
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            token_rate_limit: tokens,
            routing_method: method,
            input_token_rate_limit: input,
            output_token_rate_limit: output,
        }
    };
    let chat = "/v1/chat/completions";
    let refused = r#"400 model "llama" does not support /v1/chat/completions"#;
    let none = [None; 4];
    let table: [(&str, ModelSpec, &str, &[(&str, &str)]); 7] = [
        ("llama", spec(&[], none), "allow alice", &[]),
        (
            "llama",
            spec(&["/v1/embeddings", chat], none),
            "allow alice",
            &[],
        ),
        (
            "llama",
            spec(&[" V1/Chat/Completions/ "], none),
            "allow alice",
            &[],
        ),
        ("llama", spec(&["/v1/embeddings"], none), refused, &[]),
        ("other", spec(&["/v1/embeddings"], none), "allow alice", &[]),
        (
            "llama",
            spec(
                &[],
                [Some("10-S"), Some(" random "), Some("5-S"), Some("6-S")],
            ),
            "allow alice",
            &[
                ("weir.routing-method", "random"),
                ("weir.token-rate-limit", "10-S"),
                ("weir.input-token-rate-limit", "5-S"),
                ("weir.output-token-rate-limit", "6-S"),
            ],
        ),
        (
            "llama",
            spec(&[], [Some(""), Some(" "), None, None]),
            "allow alice",
            &[],
        ),
    ];
    for (model, spec, expected, attributes) in table {
        let (mut exchange, auth) = exchange();
        exchange.push_answer(admits(&AuthLlmInvokeResponse {
            model_specs: BTreeMap::from([(model.to_owned(), spec.clone())]),
            ..admission()
        }));
        let decided = decide(&mut exchange, &auth);
        assert_eq!(said(&decided), expected, "{spec:?}");
        let edits = match decided {
            Decision::AllowWith((_, edits)) => edits.attributes,
            _ => Vec::new(),
        };
        let edits: Vec<_> = edits
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(edits, attributes, "{spec:?}");
    }
}

#[test]
fn credentials_do_not_go_out_in_the_clear_and_into_no_log() {
    let (exchange, auth) = exchange();
    let mut exchange = exchange.plaintext("plane");
    let decided = decide(&mut exchange, &auth);
    assert_eq!(said(&decided), "503 authentication service unavailable");
    let logs = format!("{:?}", exchange.logs());
    assert!(logs.contains("nvcf.insecure is false"), "{logs}");
    assert!(!logs.contains("secret-credential"), "{logs}");
    assert_eq!(exchange.sent().len(), 0);
}
