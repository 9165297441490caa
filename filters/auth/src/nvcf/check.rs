//! Asks who calls, or knows it from a moment ago.

use prost::Message as _;
use weir_sdk::http_client::{self, Request};
use weir_sdk::metrics::Series;
use weir_sdk::state::{Scope, Store};
use weir_sdk::{Decision, Failure, RequestView, host, secrets};

use super::admission;
use super::message::{AuthLlmInvokeRequest, AuthLlmInvokeResponse};
use super::status::Refused;
use crate::config::NvcfTable;

/// A control plane. Admissions are kept for all instances, by the hash of the credential and the
/// function; refusals never are.
pub(crate) struct Nvcf {
    table: NvcfTable,
    admissions: Store,
    fresh_ms: u64,
    kept_ms: u32,
    kept: Series,
    asked: Series,
    stale: Series,
    refused: Series,
}

impl Nvcf {
    pub(crate) fn new(table: NvcfTable) -> Result<Self, String> {
        let admissions = Store::open("admissions", Scope::Local)
            .map_err(|failure| format!("nvcf needs the grant `stores`: {failure:?}"))?;
        let answers = Series::counter(
            "nvcf_authorizations_total",
            "Credentials checked, by where the answer came from.",
            &["from"],
        )?;
        let from = |name| answers.with_labels(&[name]);
        let seconds = table.ttl_seconds.saturating_add(table.stale_seconds);
        Ok(Self {
            admissions,
            fresh_ms: u64::from(table.ttl_seconds) * 1_000,
            kept_ms: seconds.saturating_mul(1_000),
            kept: from("cache"),
            asked: from("service"),
            stale: from("stale"),
            refused: from("refusal"),
            table,
        })
    }

    /// Decides about a credential.
    pub(crate) fn check(&self, credential: &[u8], request: &RequestView) -> Decision {
        let Ok(credential) = std::str::from_utf8(credential) else {
            return Refused::Status(UNAUTHENTICATED).response().into();
        };
        let routing_key = host::name_of(request.routing_key);
        let key = key(credential, &routing_key);
        let now_ms = crate::clock_ms();
        let known = self.known(&key);
        if let Some((fresh_until_ms, admission)) = &known
            && now_ms < *fresh_until_ms
        {
            self.kept.observe(1.0);
            return admission::decide(admission, request);
        }
        match self.ask(credential, &routing_key, &key) {
            Ok((answer, admission)) => {
                self.asked.observe(1.0);
                self.keep(&key, now_ms, &answer);
                admission::decide(&admission, request)
            }
            Err(refused) => match known {
                Some((_, admission)) if refused.says_nothing() => {
                    self.stale.observe(1.0);
                    weir_sdk::warn!("an admission that is old still counts: {refused:?}");
                    admission::decide(&admission, request)
                }
                _ => {
                    self.refused.observe(1.0);
                    if !refused.says_nothing() {
                        // What counted before must not count again.
                        _ = self.admissions.delete(&key);
                    }
                    refused.response().into()
                }
            },
        }
    }

    /// An admission, and until when it needs no asking.
    fn known(&self, key: &str) -> Option<(u64, AuthLlmInvokeResponse)> {
        let kept = self.admissions.get(key).ok()??;
        let (until, answer) = kept.value.split_first_chunk::<8>()?;
        let answer = AuthLlmInvokeResponse::decode(answer).ok()?;
        Some((u64::from_le_bytes(*until), answer))
    }

    fn keep(&self, key: &str, now_ms: u64, answer: &[u8]) {
        let until = now_ms.saturating_add(self.fresh_ms).to_le_bytes();
        let value = [&until, answer].concat();
        // A store that is full makes the next request ask again.
        _ = self.admissions.set(key, &value, Some(self.kept_ms));
    }

    /// Asks the service, once for all who want to know the same at the same time. The admission
    /// and its bytes.
    fn ask(
        &self,
        credential: &str,
        routing_key: &str,
        key: &str,
    ) -> Result<(Vec<u8>, AuthLlmInvokeResponse), Refused> {
        let message = AuthLlmInvokeRequest {
            client_authorization_token: credential.to_owned(),
            routing_key: routing_key.to_owned(),
        };
        let timeout_ms = self.table.timeout_ms;
        let mut request = Request::grpc(METHOD, &message.encode_to_vec(), timeout_ms).share(key);
        request.tls_only = !self.table.insecure;
        let cluster = &self.table.cluster;
        let answer = http_client::send(cluster, &request).map_err(|failure| {
            if failure == Failure::Denied {
                weir_sdk::error!(
                    "callers cannot be checked by cluster `{cluster}`: it is not granted, or has no tls while nvcf.insecure is false"
                );
            } else {
                weir_sdk::warn!("cluster `{cluster}` does not say who calls: {failure:?}");
            }
            Refused::by(failure)
        })?;
        if let Some(refused) = Refused::of(answer.status, answer.grpc_status()) {
            return Err(refused);
        }
        let message = answer.grpc_message().ok_or(Refused::Nonsense)?;
        let admission = AuthLlmInvokeResponse::decode(message).map_err(|_| Refused::Nonsense)?;
        if !admission::is_for(&admission, routing_key) {
            weir_sdk::error!(
                "cluster `{cluster}` lets a caller in without an account, or for another function"
            );
            return Err(Refused::Nonsense);
        }
        Ok((message.to_vec(), admission))
    }
}

/// The credential's SHA-256 in hexadecimal and the function. The hash has a fixed length, so that no
/// two pairs have one key; longer functions than there are would be hashed, too.
fn key(credential: &str, routing_key: &str) -> String {
    let mut key = hex(&secrets::sha256(credential.as_bytes()));
    key.push(' ');
    if routing_key.len() <= ROUTING_KEY_BYTES_MAX {
        key.push_str(routing_key);
    } else {
        key.push('#');
        key.push_str(&hex(&secrets::sha256(routing_key.as_bytes())));
    }
    key
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(nibble.into(), 16));
        }
    }
    text
}

const METHOD: &str = "/llm_gateway.LlmGateway/AuthLlmInvocation";
const UNAUTHENTICATED: u16 = 16;
/// Keys of the store have at most 256 bytes.
const ROUTING_KEY_BYTES_MAX: usize = 128;
