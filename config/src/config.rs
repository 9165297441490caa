//! The whole configuration, and reading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::DeTable;

use crate::cluster::ClusterTable;
use crate::dns::DnsTable;
use crate::error::ConfigError;
use crate::field::{Field, plain_name};
use crate::filter::FilterTable;
use crate::function::{FunctionTable, FunctionsApiTable, read_functions};
use crate::functions_file;
use crate::hints::HintsTable;
use crate::key_set::KeySet;
use crate::key_table::{KeyEntry, KeyTable};
use crate::listener::Listener;
use crate::pipeline::PipelineTable;
use crate::reader::Table;
use crate::references;
use crate::report::Report;
use crate::route::RouteTable;
use crate::server::{AdminTable, LimitsTable, LogTable, ReloadTable, ServerTable, StreamsTable};
use crate::simulator::SimulatorTable;
use crate::telemetry::TelemetryTable;
use crate::workers::WorkersTable;

/// The commented reference file, which is also the default configuration.
pub const REFERENCE: &str = include_str!("../weir.toml");

/// The functions file of a configuration that names none.
pub(crate) const FUNCTIONS_FILE: &str = "functions.toml";

/// A configuration that was checked: what it names is declared and its values are in range.
/// Paths are kept as written; see [`resolve`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The file with more `[functions.ID]` tables, which the functions API writes; it need not
    /// be there. What it says is in `functions`.
    pub functions_file: PathBuf,
    /// `[server]`.
    pub server: ServerTable,
    /// `[admin]`.
    pub admin: AdminTable,
    /// `[log]`.
    pub log: LogTable,
    /// `[telemetry]`.
    pub telemetry: TelemetryTable,
    /// `[[listeners]]`, in order.
    pub listeners: Vec<Listener>,
    /// `[[simulators]]`, in order.
    pub simulators: Vec<SimulatorTable>,
    /// `[key_tables.NAME]`.
    pub key_tables: BTreeMap<String, KeyTable>,
    /// `[key_sets.NAME]`.
    pub key_sets: BTreeMap<String, KeySet>,
    /// `[filters.NAME]`.
    pub filters: BTreeMap<String, FilterTable>,
    /// `[pipelines.NAME]`.
    pub pipelines: BTreeMap<String, PipelineTable>,
    /// `[clusters.NAME]`.
    pub clusters: BTreeMap<String, ClusterTable>,
    /// `[dns]`.
    pub dns: DnsTable,
    /// `[workers]`.
    pub workers: WorkersTable,
    /// `[functions.ID]`, of both files.
    pub functions: BTreeMap<String, FunctionTable>,
    /// `[functions_api]`.
    pub functions_api: FunctionsApiTable,
    /// `[[routes]]`, in order.
    pub routes: Vec<RouteTable>,
    /// `[hints]`.
    pub hints: HintsTable,
    /// `[limits]`.
    pub limits: LimitsTable,
    /// `[streams]`.
    pub streams: StreamsTable,
    /// `[reload]`.
    pub reload: ReloadTable,
}

/// Reads and checks a configuration of one file, without its functions file. `file` is how errors
/// name it.
///
/// # Errors
///
/// Everything that is wrong, by its place in the text. Where the text is not TOML, what follows
/// from that (missing keys, undeclared names) is not reported.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
    parse_both(text, file, None)
}

/// As [`parse`], with the name and the text of the functions file, if there is one.
pub(crate) fn parse_both(
    text: &str,
    file: &str,
    functions: Option<(&str, &str)>,
) -> Result<Config, Vec<ConfigError>> {
    let mut report = Report::new(file, text);
    let (root, syntax) = DeTable::parse_recoverable(text);
    report.syntax(&syntax);
    let mut config = Config::read(Table::root(&report, root.get_ref()));
    let whole = !report.is_broken();
    if whole {
        references::check(&config, root.get_ref(), &report);
    }
    let mut errors = report.finish();
    if let Some((beside, text)) = functions {
        let own = whole.then_some(file);
        errors.extend(functions_file::merge(&mut config, own, text, beside));
    }
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(errors)
    }
}

/// Reads the file a key table names: `[[keys]]` and nothing else.
///
/// # Errors
///
/// Everything that is wrong, by its place in the text.
pub fn parse_keys(text: &str, file: &str) -> Result<Vec<KeyEntry>, Vec<ConfigError>> {
    let mut report = Report::new(file, text);
    let (root, syntax) = DeTable::parse_recoverable(text);
    report.syntax(&syntax);
    let keys = KeyTable::read_file(Table::root(&report, root.get_ref()));
    finish(keys, report)
}

/// A path of the configuration as the file system has it: relative ones are relative to `base`,
/// the folder of the config file.
#[must_use]
pub fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

fn finish<T>(value: T, report: Report<'_>) -> Result<T, Vec<ConfigError>> {
    let errors = report.finish();
    if errors.is_empty() {
        Ok(value)
    } else {
        Err(errors)
    }
}

impl Config {
    pub(crate) fn read(mut root: Table<'_>) -> Self {
        let read = Self {
            functions_file: root.or("functions_file", FUNCTIONS_FILE.into(), Field::file_path),
            server: root.below("server", ServerTable::default(), ServerTable::read),
            admin: root.below("admin", AdminTable::default(), AdminTable::read),
            log: root.below("log", LogTable::default(), LogTable::read),
            telemetry: root.below("telemetry", TelemetryTable::default(), TelemetryTable::read),
            listeners: root.or("listeners", Vec::new(), |f| {
                f.list(|f| f.table().map(Listener::read))
            }),
            simulators: root.or("simulators", Vec::new(), |f| {
                f.list(|f| f.table().map(SimulatorTable::read))
            }),
            key_tables: root.or("key_tables", BTreeMap::new(), |f| {
                f.map(plain_name, KeyTable::read)
            }),
            key_sets: root.or("key_sets", BTreeMap::new(), |f| {
                f.map(plain_name, KeySet::read)
            }),
            filters: root.or("filters", BTreeMap::new(), |f| {
                f.map(plain_name, FilterTable::read)
            }),
            pipelines: root.or("pipelines", BTreeMap::new(), |f| {
                f.map(plain_name, PipelineTable::read)
            }),
            clusters: root.or("clusters", BTreeMap::new(), |f| {
                f.map(plain_name, ClusterTable::read)
            }),
            dns: root.below("dns", DnsTable::default(), DnsTable::read),
            workers: root.below("workers", WorkersTable::default(), WorkersTable::read),
            functions: read_functions(&mut root),
            functions_api: root.below(
                "functions_api",
                FunctionsApiTable::default(),
                FunctionsApiTable::read,
            ),
            routes: root.or("routes", Vec::new(), |f| {
                f.list(|f| f.table().map(RouteTable::read))
            }),
            hints: root.below("hints", HintsTable::default(), HintsTable::read),
            limits: root.below("limits", LimitsTable::default(), LimitsTable::read),
            streams: root.below("streams", StreamsTable::default(), StreamsTable::read),
            reload: root.below("reload", ReloadTable::default(), ReloadTable::read),
        };
        root.finish();
        read
    }
}
