//! Where conversations are while nobody has answered them yet.

use tokio::task::JoinSet;
use weir_tests::caller::{chat, send, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::{Gateway, wait_until};
use weir_tests::upstream::Upstream;

/// A new conversation goes where it is answered sooner: not to who has something to answer. What comes
/// beside its first request goes where that went all the same.
#[tokio::test]
async fn what_comes_beside_the_first_request_goes_with_it() {
    let (one, two) = (Upstream::silent().await, Upstream::silent().await);
    let pulsar = r#"default = "pulsar", pulsar = { c = 0, new_session_ttft_penalty_ms = 1 }"#;
    let config = ConfigText::new(&[one.address(), two.address()]).text();
    let gateway = Gateway::start(&config.replace(r#"default = "round_robin""#, pulsar)).await;
    let mut callers = JoinSet::new();
    let mut went = [0, 0];
    for conversation in 0..6 {
        let before = [one.requests(), two.requests()];
        for request in 1..=2 {
            let session = format!("conversation-{conversation}");
            let call = with_header(chat(""), "x-multi-turn-session-id", Some(&session));
            callers.spawn(send(gateway.address(), call));
            let arrived = async || one.requests() + two.requests() == 2 * conversation + request;
            wait_until("the request arrives", arrived).await;
        }
        let both = [one.requests() - before[0], two.requests() - before[1]];
        assert!(
            both == [2, 0] || both == [0, 2],
            "{conversation} went {both:?}"
        );
        went[0] += both[0];
        went[1] += both[1];
    }
    assert_eq!(went, [6, 6], "each new one went where less was to do");
}
