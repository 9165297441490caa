//! `/ws`: a WebSocket (RFC 6455) which sends each frame back.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::answer::Answer;
use crate::ask::Api;
use crate::engine::json;
use crate::fault::Fault;

/// The upgrade a connection has agreed to, taken up when its HTTP part is over.
#[derive(Default)]
pub(crate) struct Pending(Mutex<Option<OnUpgrade>>);

impl Pending {
    pub(crate) fn take(&self) -> Option<OnUpgrade> {
        self.0.lock().take()
    }
}

/// Answers the opening handshake.
pub(crate) fn accept(mut request: Request<Incoming>, pending: &Pending) -> Response<Answer> {
    let headers = request.headers();
    let asked = headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let accept = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| accept_key(key.as_bytes()));
    let (true, Some(Ok(accept))) = (asked, accept) else {
        let fault = Fault::new(
            StatusCode::UPGRADE_REQUIRED,
            "This path speaks WebSocket only.",
        );
        return json(fault.status, fault.body(Api::ChatCompletions));
    };
    *pending.0.lock() = Some(hyper::upgrade::on(&mut request));
    let mut response = Response::new(Answer::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Echoes until the peer closes or breaks the protocol.
pub(crate) async fn echo(upgrade: OnUpgrade) {
    let outcome = match upgrade.await {
        Ok(upgraded) => echo_frames(TokioIo::new(upgraded)).await,
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "simulator websocket ended early");
    }
}

// Written out, as an echo needs three small functions; tungstenite 0.30 would bring eight packages,
// among them a second version of the digest crates the gateway has.
async fn echo_frames(io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut io = BufReader::new(io);
    while let Some((first, payload)) = read_frame(&mut io).await? {
        match first & OPCODE {
            CONTINUATION | TEXT | BINARY => write_frame(&mut io, first, &payload).await?,
            PING => write_frame(&mut io, FIN | PONG, &payload).await?,
            PONG => {}
            CLOSE => {
                write_frame(&mut io, FIN | CLOSE, &payload).await?;
                return io.shutdown().await;
            }
            opcode => return Err(broken(format!("unknown opcode {opcode}"))),
        }
    }
    Ok(())
}

/// First byte and unmasked payload of the next frame; `None` at the end of the connection.
async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let first = match io.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let second = io.read_u8().await?;
    if second & MASKED == 0 {
        return Err(broken("frame of a client is not masked"));
    }
    let length = match second & !MASKED {
        LENGTH_16 => u64::from(io.read_u16().await?),
        LENGTH_64 => io.read_u64().await?,
        length => u64::from(length),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Err(broken(format!("frame of {length} bytes")));
    }
    let mask = io.read_u32().await?.to_be_bytes();
    let mut payload = vec![0; usize::try_from(length).map_err(broken)?];
    io.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some((first, payload)))
}

async fn write_frame(
    io: &mut (impl AsyncWrite + Unpin),
    first: u8,
    payload: &[u8],
) -> io::Result<()> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(LENGTH_16);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(LENGTH_64);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    io.write_all(&frame).await?;
    io.flush().await
}

fn accept_key(key: &[u8]) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(HANDSHAKE_GUID);
    HeaderValue::from_str(&STANDARD.encode(hash.finalize()))
}

fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const PAYLOAD_BYTES_MAX: u64 = 16 << 20;
/// RFC 6455 section 1.3.
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn accept_key_of_the_rfc() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
