//! Single requests to simulators and the gateway's admin address.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The body of a `GET`.
///
/// # Errors
/// When it is not answered with a status of 2xx.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    send(address, Method::GET, path, String::new()).await
}

/// The body of the answer to a `POST` of JSON.
///
/// # Errors
/// As [`get`].
pub(crate) async fn post(address: SocketAddr, path: &str, body: String) -> io::Result<String> {
    send(address, Method::POST, path, body).await
}

async fn send(address: SocketAddr, method: Method, path: &str, body: String) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if status.is_success() {
        Ok(text)
    } else {
        Err(io::Error::other(format!(
            "{address}{path}: {status} {text}"
        )))
    }
}
