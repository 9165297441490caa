//! The table `[dns]`: how names of endpoints are looked up.

use serde::Serialize;

use crate::field::{Field, TIME_MS};
use crate::reader::Table;

/// `[dns]`: names of endpoints, looked up by the system's resolver. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsTable {
    /// How often each name is looked up again, in milliseconds; 0: at a reload only.
    pub refresh_ms: u64,
    /// Of a name with addresses of both families only these are used.
    pub prefer: IpFamily,
}

/// A version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// 127.0.0.1
    Ipv4,
    /// ::1
    Ipv6,
}

impl Default for DnsTable {
    fn default() -> Self {
        Self {
            refresh_ms: 5_000,
            prefer: IpFamily::Ipv4,
        }
    }
}

impl DnsTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let families = [("ipv4", IpFamily::Ipv4), ("ipv6", IpFamily::Ipv6)];
        let read = Self {
            refresh_ms: table.or("refresh_ms", default.refresh_ms, |f: &Field<'_>| {
                f.integer(0..=*TIME_MS.end())
            }),
            prefer: table.or("prefer", default.prefer, |f| f.choice(&families)),
        };
        table.finish();
        read
    }
}
