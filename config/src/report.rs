//! Collects every error of one file, with its place.

use std::cell::RefCell;

use toml::de::DeTable;

use crate::error::ConfigError;
use crate::key;

/// Collects the errors of one file.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// The text is not wholly TOML: what is missing may merely not have been understood.
    broken: bool,
    errors: RefCell<Vec<ConfigError>>,
    /// Every key asked for and whether the file has it, for the test of the reference file.
    #[cfg(test)]
    pub(crate) asked: RefCell<Vec<(String, bool)>>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            broken: false,
            errors: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Records what the TOML parser found. Called once, before anything else.
    pub(crate) fn syntax(&mut self, errors: &[toml::de::Error]) {
        self.broken = !errors.is_empty();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.add(at, "", error.message().to_owned(), "correct the TOML here");
        }
    }

    /// Whether the text is not wholly TOML.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Records an error at a byte of the text.
    pub(crate) fn add(&self, at: usize, key: &str, message: String, remedy: impl Into<String>) {
        let (line, column) = key::line_and_column(self.text, at);
        let remedy = remedy.into();
        let (file, key) = (self.file.to_owned(), key.to_owned());
        self.errors.borrow_mut().push(ConfigError {
            file,
            line,
            column,
            key,
            message,
            remedy,
        });
    }

    /// Records an error found after reading, at the place of `key`. A key which has an error
    /// already keeps that one: what was read in its place means nothing.
    pub(crate) fn add_at(
        &self,
        root: &DeTable<'_>,
        key: &str,
        message: String,
        remedy: impl Into<String>,
    ) {
        if !self.errors.borrow().iter().any(|error| error.key == key) {
            self.add(key::offset(root, key).unwrap_or(0), key, message, remedy);
        }
    }

    /// All errors, by their place; those on a line that is not TOML are left out, except its own.
    pub(crate) fn finish(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        let broken: Vec<usize> = errors
            .iter()
            .filter(|e| e.key.is_empty())
            .map(|e| e.line)
            .collect();
        errors.retain(|error| error.key.is_empty() || !broken.contains(&error.line));
        errors.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        errors
    }
}
