//! The tables `[key_tables.NAME]`: who may call.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::field::Field;
use crate::function::priority;
use crate::reader::Table;
use crate::secret::{Secret, mask_hash};

/// A set of caller keys which filters with the grant may look keys up in. Live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyTable {
    /// The keys written here.
    pub keys: Vec<KeyEntry>,
    /// A TOML file with more `[[keys]]`, looked at live; see [`crate::parse_keys`].
    pub file: Option<PathBuf>,
}

/// One caller key. Exactly one of `sha256` and `key` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyEntry {
    /// What logs and metrics call it; unique in its table.
    pub id: String,
    /// SHA-256 of the key, 64 lower-case hex digits. Shown as `***`.
    #[serde(serialize_with = "mask_hash")]
    pub sha256: Option<String>,
    /// The key itself.
    pub key: Option<Secret>,
    /// Whose limits it counts against; the id by default.
    pub tenant: String,
    /// The plan of the tenant, for filters to read.
    pub plan: String,
    /// Models it may call (`function/model`, or `function/*`); empty: all.
    pub models: Vec<String>,
    /// What it may do beyond calling, for filters to read and for [`crate::HintsTable`].
    pub scopes: Vec<String>,
    /// Whether its calls are served first: lower before higher, 0 is the highest.
    pub priority: Option<u32>,
}

impl KeyTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let keys = read_keys(&mut table);
        let file = table.optional("file", Field::file_path);
        table.finish();
        Self { keys, file }
    }

    /// A file of its own with nothing but `[[keys]]`.
    pub(crate) fn read_file(mut table: Table<'_>) -> Vec<KeyEntry> {
        let keys = read_keys(&mut table);
        table.finish();
        keys
    }
}

fn read_keys(table: &mut Table<'_>) -> Vec<KeyEntry> {
    let keys = table.or("keys", Vec::new(), |f| {
        f.list(|f| f.table().map(KeyEntry::read))
    });
    let mut ids = BTreeSet::new();
    let mut values = BTreeSet::new();
    for (index, key) in keys.iter().enumerate() {
        if !key.id.is_empty() && !ids.insert(key.id.as_str()) {
            let message = format!("two keys have the id `{}`", key.id);
            table.element_error("keys", index, message, "rename one");
        }
        let value = key
            .sha256
            .as_deref()
            .or(key.key.as_ref().map(Secret::reveal));
        if value.is_some_and(|value| !values.insert(value)) {
            let message = format!("the key `{}` is the same as one before it", key.id);
            table.element_error("keys", index, message, "remove it or make a new key");
        }
    }
    keys
}

impl KeyEntry {
    fn read(mut table: Table<'_>) -> Self {
        let id = table.required("id", String::new(), "add id = \"who-uses-it\"", Field::name);
        let sha256 = table.optional("sha256", sha256);
        let key = table.optional("key", Field::secret);
        let remedy = "write one of the two: printf %s KEY | sha256sum gives the sha256";
        match (table.has("sha256"), table.has("key")) {
            (false, false) => table.missing(
                "sha256",
                "`sha256` and `key` are both missing".into(),
                remedy,
            ),
            (true, true) => {
                table.error("sha256", "`sha256` and `key` are both there".into(), remedy)
            }
            _ => {}
        }
        let read = Self {
            tenant: table.or("tenant", id.clone(), Field::name),
            plan: table.or("plan", "default".into(), Field::name),
            models: table.or("models", Vec::new(), Field::names),
            scopes: table.or("scopes", Vec::new(), Field::names),
            priority: table.optional("priority", priority),
            id,
            sha256,
            key,
        };
        table.finish();
        read
    }
}

/// A hash in hex. The message does not repeat it: it may be the key, put in the wrong place.
pub(crate) fn sha256(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text);
    }
    field.error(
        "is not a SHA-256: it must be 64 hex digits".into(),
        "take the output of: printf %s KEY | sha256sum",
    )
}
