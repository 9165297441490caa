//! 1.1 and 1.12: health paths and bounds. Draining stands in `lifecycle` of the operators' suite, no
//! limit on the whole answer in `weaknesses`, the limit on a stalled write in `streams`.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::convert::Infallible;
use weir_tests::caller::{Body, chat_body, post, request};

use super::row::{Row, recorded, refused, served, walk};

const PATH: &str = "/v1/chat/completions";

/// The body of a chat completion of exactly so many bytes.
fn sized(bytes: usize) -> String {
    let around = chat_body("demo/sim", r#""x":"""#).len();
    chat_body(
        "demo/sim",
        &format!(r#""x":"{}""#, "x".repeat(bytes - around)),
    )
}

/// The same without telling its length beforehand.
fn unannounced(body: &str) -> Request<Body> {
    let pieces: Vec<_> = body
        .as_bytes()
        .chunks(700)
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync();
    request(Method::POST, PATH, body)
}

#[tokio::test]
async fn bounds_of_a_request() {
    let (gateway, recorder) =
        recorded(|config| config.more("[limits]\nbody_max_bytes = 5000\nheaders_max = 20")).await;
    let mut many = post(PATH, sized(200));
    for number in 0..25 {
        let name = http::HeaderName::try_from(format!("x-field-{number}")).unwrap();
        many.headers_mut()
            .insert(name, http::HeaderValue::from_static("1"));
    }
    let too_large = |what: &str, request| -> Row {
        refused(format!("1.12 {what}"), request, 413, "body_too_large")
            .says("request body is larger than 5000 bytes")
    };
    let rows = vec![
        served("1.12 a body of the largest size", post(PATH, sized(5_000))),
        served(
            "1.12 the same, its length not announced",
            unannounced(&sized(5_000)),
        ),
        too_large("a byte more", post(PATH, sized(5_001))),
        too_large(
            "a byte more, its length not announced",
            unannounced(&sized(5_001)),
        ),
        refused("1.12 too many headers", many, 431, "headers_too_large"),
    ];
    walk(&gateway, &recorder, rows).await;
}

/// 1.1: static answers, whatever becomes of the model servers.
#[tokio::test]
async fn health() {
    let (gateway, recorder) = recorded(|config| config).await;
    drop(recorder);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
        let posted = gateway.admin_post(path, "").await;
        assert_eq!(
            (posted.status, posted.header("allow")),
            (405, "GET"),
            "{path}"
        );
    }
}
