//! Fake of `http-client`: queued answers, recorded requests.

use crate::http_client::{Request, Response};
use crate::testing::world::with;
use crate::types::Failure;

pub(crate) fn send(cluster: &str, request: &Request) -> Result<Response, Failure> {
    with(|world| {
        if request.tls_only && world.plaintext.iter().any(|plain| plain == cluster) {
            return Err(Failure::Denied);
        }
        world.sent.push((cluster.to_owned(), request.clone()));
        world
            .answers
            .pop_front()
            .unwrap_or(Err(Failure::Unavailable))
    })
}
