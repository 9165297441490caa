//! The Wasm modules inside the binary, built from `filters/` by the build script.

/// The module of `builtin:NAME`; the names are [`weir_config::BUILTINS`].
pub(crate) fn module(name: &str) -> Option<&'static [u8]> {
    match name {
        "auth" => Some(include_bytes!(env!("WEIR_FILTER_AUTH"))),
        "token-limit" => Some(include_bytes!(env!("WEIR_FILTER_TOKEN_LIMIT"))),
        "session-affinity" => Some(include_bytes!(env!("WEIR_FILTER_SESSION_AFFINITY"))),
        "routing-method" => Some(include_bytes!(env!("WEIR_FILTER_ROUTING_METHOD"))),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_name_the_config_knows_has_a_module() {
        for name in weir_config::BUILTINS {
            assert!(module(name).unwrap().starts_with(b"\0asm"), "{name}");
        }
        assert!(module("other").is_none());
    }
}
