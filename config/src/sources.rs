//! The texts a configuration is made of: its file, and the functions file which that one names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::{Config, FUNCTIONS_FILE, parse_both, resolve};
use crate::error::ConfigError;

/// The texts of a configuration, as they were read at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The config file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The functions file as the file system has it, there or not.
    pub functions_file: PathBuf,
    /// Its text; none when it is not there.
    pub functions: Option<String>,
}

impl Sources {
    /// Reads the config file at `path` and its functions file.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read; a functions file that is not there is none.
    pub fn read(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let text = std::fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let functions_file = resolve(folder, &named_in(&text));
        let functions = match std::fs::read_to_string(&functions_file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(vec![unreadable(&functions_file, &error)]),
        };
        Ok(Self {
            file: path.to_path_buf(),
            text,
            functions_file,
            functions,
        })
    }

    /// What the texts say.
    ///
    /// # Errors
    ///
    /// As [`crate::parse`], those of the functions file last.
    pub fn parse(&self) -> Result<Config, Vec<ConfigError>> {
        let beside = self.functions_file.display().to_string();
        let functions = self
            .functions
            .as_ref()
            .map(|text| (beside.as_str(), text.as_str()));
        parse_both(&self.text, &self.file.display().to_string(), functions)
    }
}

/// Reads the file at `path` and the functions file it names, and gives the text of the first along
/// with what both say.
///
/// # Errors
///
/// As [`Sources::parse`]; a file that cannot be read is one error at its first line.
pub fn load(path: &Path) -> Result<(Config, String), Vec<ConfigError>> {
    let sources = Sources::read(path)?;
    sources.parse().map(|config| (config, sources.text))
}

/// The functions file a text names; what is wrong with that key is found when it is parsed.
fn named_in(text: &str) -> PathBuf {
    let (root, _) = DeTable::parse_recoverable(text);
    let named = root
        .get_ref()
        .get("functions_file")
        .and_then(|value| value.get_ref().as_str());
    PathBuf::from(named.unwrap_or(FUNCTIONS_FILE))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        line: 1,
        column: 1,
        key: String::new(),
        message: format!("cannot be read: {error}"),
        remedy: "check the path and its permissions".into(),
    }
}
