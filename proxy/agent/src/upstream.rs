//! Where the model server is, and connecting to it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use weir_tunnel::Socket;

/// The address of the model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// `host:port`, without TLS: the agent stands beside it.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Upstream {
    /// Reads `http://host:port`, `http://host` or `unix:path`.
    ///
    /// # Errors
    /// What is wrong with `url`.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("the path of the socket is missing".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let Some(authority) = url.strip_prefix("http://") else {
            return Err(format!("`{url}` is neither http://host:port nor unix:path"));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: http::uri::Authority = authority
            .parse()
            .map_err(|_| format!("`{authority}` is not host:port"))?;
        if parsed.as_str().contains('@') {
            return Err("a user has no meaning here".to_owned());
        }
        let port = parsed.port_u16().unwrap_or(80);
        Ok(Self::Tcp(format!("{}:{port}", parsed.host())))
    }

    /// What a request to it has as its `host`.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "localhost",
        }
    }

    pub(crate) async fn connect(&self, wait: Duration) -> io::Result<Socket> {
        let connecting = async {
            match self {
                Self::Tcp(address) => {
                    let socket = TcpStream::connect(address.as_str()).await?;
                    socket.set_nodelay(true)?;
                    Ok(Socket::Tcp(socket))
                }
                Self::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
            }
        };
        match tokio::time::timeout(wait, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_addresses_or_wrong() {
        for (url, expected) in [
            (
                "http://127.0.0.1:8000",
                Some(Upstream::Tcp("127.0.0.1:8000".to_owned())),
            ),
            ("http://model/", Some(Upstream::Tcp("model:80".to_owned()))),
            (
                "http://[::1]:8000",
                Some(Upstream::Tcp("[::1]:8000".to_owned())),
            ),
            (
                "unix:/run/m.sock",
                Some(Upstream::Unix("/run/m.sock".into())),
            ),
            (
                "unix:///run/m.sock",
                Some(Upstream::Unix("/run/m.sock".into())),
            ),
            ("unix:", None),
            ("https://model:443", None),
            ("model:8000", None),
            ("http://model:8000/v1", None),
            ("http://user@model:8000", None),
        ] {
            assert_eq!(Upstream::parse(url).ok(), expected, "{url}");
        }
    }
}
