//! The functions file: `[functions.ID]` tables beside those of the config, and nothing else.

use toml::de::DeTable;

use crate::config::Config;
use crate::error::ConfigError;
use crate::function::read_functions;
use crate::key;
use crate::reader::Table;
use crate::references;
use crate::report::Report;

/// Adds the functions of the text of a functions file to a configuration. `own` names the file of
/// the configuration; without one that was not wholly TOML, and what it declares is not known.
/// Gives everything that is wrong, by its place in the text.
pub(crate) fn merge(
    config: &mut Config,
    own: Option<&str>,
    text: &str,
    file: &str,
) -> Vec<ConfigError> {
    let mut report = Report::new(file, text);
    let (root, syntax) = DeTable::parse_recoverable(text);
    report.syntax(&syntax);
    let root = root.get_ref();
    let mut table = Table::root(&report, root);
    let functions = read_functions(&mut table);
    table.finish();
    for id in functions.keys() {
        if config.functions.contains_key(id) {
            let own = own.unwrap_or("the config");
            let message = format!("`{id}` is declared here and in {own}");
            let key = key::join("functions", id);
            report.add_at(root, &key, message, "remove it in one of the two files");
        }
    }
    if own.is_some() && !report.is_broken() {
        references::check_functions(config, &functions, root, &report);
    }
    config.functions.extend(functions);
    report.finish()
}
