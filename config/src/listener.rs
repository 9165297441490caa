//! The tables `[[listeners]]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use crate::field::{Field, TIME_MS};
use crate::reader::Table;

/// An address callers connect to. Adding, removing or changing one needs a restart; the
/// certificate files are looked at live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name in logs and metrics; unique.
    pub name: String,
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Whether HTTP/2 with prior knowledge is understood without TLS.
    pub h2c: bool,
    /// Certificate and key; without them the listener speaks plain HTTP.
    pub tls: Option<TlsTable>,
    /// How long a connection may stay open between exchanges, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// The files of a listener's certificate, both PEM. Relative to the folder of the config file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsTable {
    /// The certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Listener {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let read = Self {
            name: table.required("name", String::new(), "add name = \"main\"", Field::name),
            listen: table.required(
                "listen",
                nowhere,
                "add listen = \"127.0.0.1:8080\"",
                Field::socket_addr,
            ),
            h2c: table.or("h2c", true, Field::flag),
            tls: table.optional("tls", |f| f.table().map(TlsTable::read)),
            idle_timeout_ms: table.or("idle_timeout_ms", 60_000, |f| f.integer(TIME_MS)),
        };
        table.finish();
        read
    }
}

impl TlsTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let absent = PathBuf::new;
        let read = Self {
            cert: table.required(
                "cert",
                absent(),
                "add cert = \"cert.pem\"",
                Field::file_path,
            ),
            key: table.required("key", absent(), "add key = \"key.pem\"", Field::file_path),
        };
        table.finish();
        read
    }
}
