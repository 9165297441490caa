//! Requests to clusters that the configuration names and grants to this filter.
//!
//! A call suspends the filter, not the gateway. Available in request phases and ticks; in stream
//! phases it answers [`Failure::WouldBlock`].

pub use crate::bindings::imports::weir::filter::http_client::{Request, Response};
use crate::raw::http_client as raw;
use crate::types::Failure;

/// Sends a request to a backend of `cluster` and waits for the whole answer.
///
/// # Errors
/// [`Failure::Denied`] for a cluster not granted, [`Failure::Timeout`], [`Failure::TooLarge`]
/// for an answer over the limit, [`Failure::Unavailable`] when no backend answers.
pub fn send(cluster: &str, request: &Request) -> Result<Response, Failure> {
    raw::send(cluster, request)
}

impl Request {
    /// A GET with 1 s for everything.
    #[must_use]
    pub fn get(path_and_query: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path_and_query: path_and_query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 1_000,
            tls_only: false,
            share: None,
        }
    }

    /// A gRPC call with one message, already encoded, for a cluster with `http2`. Its status is
    /// [`Response::grpc_status`], and the message answered [`Response::grpc_message`].
    #[must_use]
    pub fn grpc(method: &str, message: &[u8], timeout_ms: u32) -> Self {
        let mut body = vec![0];
        body.extend(
            u32::try_from(message.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        body.extend(message);
        let timeout = [timeout_ms.to_string().as_bytes(), b"m"].concat();
        Self {
            method: "POST".to_owned(),
            path_and_query: method.to_owned(),
            headers: vec![
                ("content-type".to_owned(), b"application/grpc".to_vec()),
                ("grpc-timeout".to_owned(), timeout),
            ],
            body,
            timeout_ms,
            tls_only: false,
            share: None,
        }
    }

    /// A POST of JSON text with 1 s for everything.
    #[must_use]
    pub fn post_json(path_and_query: &str, json: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::get(path_and_query);
        request.method = "POST".to_owned();
        request
            .headers
            .push(("content-type".to_owned(), b"application/json".to_vec()));
        request.body = json.into();
        request
    }

    /// Another time for everything, at most 60 s.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Not to a cluster without TLS: sending then answers [`Failure::Denied`].
    #[must_use]
    pub fn tls_only(mut self) -> Self {
        self.tls_only = true;
        self
    }

    /// Sent once for all requests of this filter to the cluster that are under way at the same
    /// time and have the same `share`: to the filter they are the same request.
    #[must_use]
    pub fn share(mut self, share: impl Into<String>) -> Self {
        self.share = Some(share.into());
        self
    }
}

impl Response {
    /// First value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        first(&self.headers, name)
    }

    /// First value of a trailer; the name in lower case.
    #[must_use]
    pub fn trailer(&self, name: &str) -> Option<&[u8]> {
        first(&self.trailers, name)
    }

    /// The status of a gRPC call: in the trailers, or in the headers of an answer without a
    /// message; none in what is no answer of gRPC.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        let status = self.trailer("grpc-status");
        let status = status.or_else(|| self.header("grpc-status"))?;
        std::str::from_utf8(status).ok()?.parse().ok()
    }

    /// The one message of an answer of gRPC; none when there is not exactly one, or it is
    /// compressed.
    #[must_use]
    pub fn grpc_message(&self) -> Option<&[u8]> {
        let (head, message) = self.body.split_first_chunk::<5>()?;
        let [0, length @ ..] = *head else {
            return None;
        };
        (usize::try_from(u32::from_be_bytes(length)) == Ok(message.len())).then_some(message)
    }
}

fn first<'h>(headers: &'h [(String, Vec<u8>)], name: &str) -> Option<&'h [u8]> {
    let found = headers.iter().find(|(known, _)| known == name)?;
    Some(&found.1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Request, Response};

    fn response(headers: &[(&str, &str)], trailers: &[(&str, &str)], body: &[u8]) -> Response {
        let owned = |pairs: &[(&str, &str)]| {
            let owned =
                |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
            pairs.iter().map(owned).collect()
        };
        Response {
            status: 200,
            headers: owned(headers),
            body: body.to_vec(),
            trailers: owned(trailers),
        }
    }

    #[test]
    fn statuses_of_grpc() {
        let table = [
            (response(&[], &[("grpc-status", "0")], b""), Some(0)),
            (response(&[("grpc-status", "16")], &[], b""), Some(16)),
            (
                response(&[("grpc-status", "5")], &[("grpc-status", "7")], b""),
                Some(7),
            ),
            (response(&[("grpc-status", "x")], &[], b""), None),
            (response(&[], &[], b""), None),
        ];
        for (response, expected) in table {
            assert_eq!(response.grpc_status(), expected, "{response:?}");
        }
    }

    #[test]
    fn messages_of_grpc() {
        let sent = Request::grpc("/a.B/C", b"abc", 2_000);
        assert_eq!(sent.headers[1].1, b"2000m");
        let message = |body: &[u8]| response(&[], &[], body).grpc_message().map(<[u8]>::to_vec);
        assert_eq!(message(&sent.body).unwrap(), b"abc");
        assert_eq!(message(&[0, 0, 0, 0, 0]).unwrap(), b"");
        for wrong in [&b""[..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1]] {
            assert_eq!(message(wrong), None, "{wrong:?}");
        }
    }
}
