//! What most tests begin with: one gateway before one model server.

use http::Request;
use weir_tests::caller::{self, Answer, Body};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;

/// A gateway before a faultless model server.
pub(crate) async fn demo() -> (Gateway, Simulated) {
    demo_with(|config| config).await
}

/// The same with more in its config.
pub(crate) async fn demo_with(
    change: impl FnOnce(ConfigText) -> ConfigText,
) -> (Gateway, Simulated) {
    let simulated = Simulated::start().await;
    let config = change(ConfigText::new(&[simulated.address()]));
    let gateway = Gateway::start(&config.text()).await;
    (gateway, simulated)
}

/// The protocols callers speak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

impl Speaks {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    /// Asks over a new connection.
    pub(crate) async fn ask(self, gateway: &Gateway, request: Request<Body>) -> Answer {
        match self {
            Self::Http1 => caller::send(gateway.address(), request).await,
            Self::Http2 => caller::send_http2(gateway.address(), request).await,
        }
    }
}
