//! Gateways with other ways to know callers.

use std::net::SocketAddr;

use http::Request;
use tempfile::TempDir;
use weir_tests::caller::{self, Answer, Body, chat, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;

/// A gateway whose filter `auth` has this table and these grants, and more in its config. Files of
/// the folder can be named there.
pub(super) async fn gateway(
    folder: TempDir,
    endpoint: SocketAddr,
    (auth, grants): (&str, &str),
    more: &str,
) -> Gateway {
    let text = ConfigText::new(&[endpoint])
        .cluster("router_headers = true")
        .more(more)
        .text();
    let (table, granted) = (
        r#"config = { key_table = "demo" }"#,
        r#"grants = { read_headers = ["authorization"], key_tables = ["demo"] }"#,
    );
    assert!(text.contains(table) && text.contains(granted), "{text}");
    let text = text
        .replacen(table, &format!("config = {auth}"), 1)
        .replacen(
            granted,
            &format!(r#"grants = {{ read_headers = ["authorization"], {grants} }}"#),
            1,
        );
    Gateway::start_in(folder, &text).await
}

/// A chat completion of a caller with this credential.
pub(super) fn with_credential(credential: &str) -> Request<Body> {
    with_header(
        chat(""),
        "authorization",
        Some(&format!("Bearer {credential}")),
    )
}

/// Asks for a chat completion with a credential.
pub(super) async fn ask(gateway: &Gateway, credential: &str) -> Answer {
    caller::send(gateway.address(), with_credential(credential)).await
}

/// Status and code.
pub(super) fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.code())
        .trim()
        .to_owned()
}
