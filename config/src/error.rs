//! One finding in a configuration: where it is, what is wrong, what to do.

/// One thing wrong with a configuration file.
///
/// [`crate::parse`] returns all of them at once, ordered by their place in the file. The text
/// never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}; {remedy}", prefix(key))]
pub struct ConfigError {
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The dotted key, `functions.demo.models."meta/llama".cluster` or `listeners[0].listen`;
    /// empty when the text is not TOML at this place or the file cannot be read.
    pub key: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

fn prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    }
}
