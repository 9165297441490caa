//! The config of a gateway under test: the built-in filters, one key, one model, and what a test adds.

use std::fmt::Write;
use std::net::SocketAddr;

/// The key every config of [`ConfigText`] knows. It belongs to the tenant `demo`.
pub const KEY: &str = "weir-demo-key";

/// A config for [`crate::gateway::Gateway::start`]: model `demo/sim` on cluster `sim`.
#[derive(Clone, Debug)]
pub struct ConfigText {
    endpoints: Vec<SocketAddr>,
    listener: String,
    cluster: String,
    model: String,
    more: String,
    is_shipped: bool,
}

impl ConfigText {
    /// Model `demo/sim`, answered by these endpoints in turn. They get all headers of callers: the
    /// simulator and scripts are told by some what to do.
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            listener: String::new(),
            cluster: String::new(),
            model: String::new(),
            more: String::new(),
            is_shipped: false,
        }
    }

    /// Headers and conversations as they are where a config says nothing of them.
    #[must_use]
    pub fn as_shipped(mut self) -> Self {
        self.is_shipped = true;
        self
    }

    /// Lines of the listener `main`.
    #[must_use]
    pub fn listener(mut self, lines: &str) -> Self {
        append(&mut self.listener, lines);
        self
    }

    /// Lines of `[clusters.sim]`.
    #[must_use]
    pub fn cluster(mut self, lines: &str) -> Self {
        append(&mut self.cluster, lines);
        self
    }

    /// Lines of `[functions.demo.models.sim]`.
    #[must_use]
    pub fn model(mut self, lines: &str) -> Self {
        append(&mut self.model, lines);
        self
    }

    /// Further tables; `{endpoint}` in them stands for the first endpoint.
    #[must_use]
    pub fn more(mut self, tables: &str) -> Self {
        append(&mut self.more, tables);
        self
    }

    /// The config in TOML, with `{listen}` and `{admin}` to be filled in by the gateway.
    pub fn text(&self) -> String {
        let quoted: Vec<_> = self
            .endpoints
            .iter()
            .map(|at| format!("\"{at}\""))
            .collect();
        let mut text = HEAD.to_owned();
        append(&mut text, &self.listener);
        if self.is_shipped {
            append(&mut text, &MIDDLE.replace(NAMED_ONLY, ""));
        } else {
            append(&mut text, MIDDLE);
        }
        // Writing to a string cannot fail.
        _ = write!(
            text,
            "[clusters.sim]\nendpoints = [{}]\n",
            quoted.join(", ")
        );
        if !self.is_shipped {
            append(&mut text, "forward_headers = [\"*\"]");
        }
        append(&mut text, &self.cluster);
        append(
            &mut text,
            "[functions.demo.models.sim]\ncluster = \"sim\"\nupstream_model = \"sim\"",
        );
        append(&mut text, &self.model);
        let first = self.endpoints.first().map(ToString::to_string);
        let more = self.more.replace("{endpoint}", &first.unwrap_or_default());
        append(&mut text, &more);
        text
    }
}

fn append(text: &mut String, lines: &str) {
    text.push_str(lines);
    if !lines.is_empty() && !lines.ends_with('\n') {
        text.push('\n');
    }
}

const HEAD: &str = r#"
[server]
threads = 2
drain_timeout_ms = 5000
[admin]
listen = "{admin}"
[reload]
poll_ms = 50
[[listeners]]
name = "main"
listen = "{listen}"
"#;

/// The key is the one of the demo config, by its hash. The filters have more time than by default:
/// it is measured by the clock on the wall, and the tests keep every core busy. Requests that name
/// no conversation belong to none, or most tests would see one backend only.
const MIDDLE: &str = r#"
[[key_tables.demo.keys]]
id = "demo"
sha256 = "37a721706adc5240e60def713f9817d6800983f74ab6c89c32f41c244b29e03f"
tenant = "demo"

[filters.auth]
module = "builtin:auth"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
config = { key_table = "demo" }
grants = { read_headers = ["authorization"], key_tables = ["demo"] }
[filters.token-limit]
module = "builtin:token-limit"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
config = { default = "1000000000-S" }
grants = { limiters = true }
[filters.session-affinity]
module = "builtin:session-affinity"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
config = { sources = ["prompt_cache_key", "conversation_id", "session_header"] }
grants = { read_headers = ["x-multi-turn-session-id"], write_headers = ["x-multi-turn-session-id"] }
[filters.routing-method]
module = "builtin:routing-method"
limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }
config = { default = "round_robin" }

[pipelines.default]
filters = ["auth", "token-limit", "session-affinity", "routing-method"]
[pipelines.headers]
filters = ["auth"]

"#;

const NAMED_ONLY: &str =
    "config = { sources = [\"prompt_cache_key\", \"conversation_id\", \"session_header\"] }\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_where_nothing_is_to_be() {
        let config = ConfigText::new(&[SocketAddr::from(([127, 0, 0, 1], 1))]);
        for word in ["forward_headers", "sources"] {
            assert!(config.text().contains(word));
            assert!(!config.clone().as_shipped().text().contains(word));
        }
    }

    #[test]
    fn lines_land_in_their_tables() {
        let text = ConfigText::new(&[SocketAddr::from(([127, 0, 0, 1], 1))])
            .listener("h2c = true")
            .cluster("retries = 7")
            .model("token_rate_limit = \"1-W\"")
            .more("[limits]\nbody_max_bytes = 10")
            .text();
        for expected in [
            "listen = \"{listen}\"\nh2c = true\n",
            "endpoints = [\"127.0.0.1:1\"]\nforward_headers = [\"*\"]\nretries = 7\n",
            "upstream_model = \"sim\"\ntoken_rate_limit = \"1-W\"\n[limits]\nbody_max_bytes = 10\n",
        ] {
            assert!(text.contains(expected), "{expected} in:\n{text}");
        }
    }
}
