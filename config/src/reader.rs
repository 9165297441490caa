//! Takes keys out of a parsed TOML table and knows which were asked for.

use toml::de::DeTable;

use crate::field::Field;
use crate::key;
use crate::report::Report;

/// A table being read. Every key is asked for once; [`Table::finish`] reports the others.
pub(crate) struct Table<'t> {
    report: &'t Report<'t>,
    path: String,
    at: usize,
    entries: &'t DeTable<'t>,
    asked: Vec<&'static str>,
}

impl<'t> Table<'t> {
    /// The root table of a file.
    pub(crate) fn root(report: &'t Report<'t>, entries: &'t DeTable<'t>) -> Self {
        Self::new(report, String::new(), 0, entries)
    }

    /// The table at the key `path` and the byte `at`.
    pub(crate) fn new(
        report: &'t Report<'t>,
        path: String,
        at: usize,
        entries: &'t DeTable<'t>,
    ) -> Self {
        Self {
            report,
            path,
            at,
            entries,
            asked: Vec::new(),
        }
    }

    /// The value of a key, read by `read`; `default` when it is absent or wrong.
    pub(crate) fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&Field<'t>) -> Option<T>,
    ) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// The value of a key which has no default.
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Field<'t>) -> Option<T>,
    ) -> Option<T> {
        self.field(name).and_then(|field| read(&field))
    }

    /// The value of a key that must be there. When it is absent or wrong that is reported, and
    /// `placeholder` stands in so that the rest can be read.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        placeholder: T,
        remedy: &str,
        read: impl FnOnce(&Field<'t>) -> Option<T>,
    ) -> T {
        match self.field(name) {
            Some(field) => read(&field).unwrap_or(placeholder),
            None => {
                self.missing(name, format!("missing key `{name}`"), remedy);
                placeholder
            }
        }
    }

    /// Reads a table below this one; `absent` when there is none.
    pub(crate) fn below<T>(
        &mut self,
        name: &'static str,
        absent: T,
        read: impl FnOnce(Table<'t>) -> T,
    ) -> T {
        self.optional(name, Field::table).map_or(absent, read)
    }

    /// Whether the file has the key, right or wrong.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Reports an error about a key of this table, at its value or else at the table.
    pub(crate) fn error(&self, name: &str, message: String, remedy: impl Into<String>) {
        let at = self
            .entries
            .get(name)
            .map_or(self.at, |value| value.span().start);
        self.report
            .add(at, &key::join(&self.path, name), message, remedy);
    }

    /// Reports an error about something absent, unless it may just not have been understood.
    pub(crate) fn missing(&self, name: &str, message: String, remedy: &str) {
        if !self.report.is_broken() {
            self.error(name, message, remedy);
        }
    }

    /// Reports an error about an element of an array of this table.
    pub(crate) fn element_error(&self, name: &str, index: usize, message: String, remedy: &str) {
        let array = self
            .entries
            .get(name)
            .and_then(|value| value.get_ref().as_array());
        let at = array
            .and_then(|array| array.get(index))
            .map_or(self.at, |e| e.span().start);
        let key = format!("{}[{index}]", key::join(&self.path, name));
        self.report.add(at, &key, message, remedy);
    }

    /// Reports the keys nobody asked for.
    pub(crate) fn finish(self) {
        for (name, _) in self.entries.iter() {
            let name_text = name.get_ref().as_ref();
            if self.asked.contains(&name_text) {
                continue;
            }
            let remedy = match key::nearest(name_text, &self.asked) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it or use one of: {}", self.asked.join(", ")),
            };
            let path = key::join(&self.path, name_text);
            self.report.add(
                name.span().start,
                &path,
                format!("unknown key `{name_text}`"),
                remedy,
            );
        }
    }

    fn field(&mut self, name: &'static str) -> Option<Field<'t>> {
        self.asked.push(name);
        let path = key::join(&self.path, name);
        let value = self.entries.get(name);
        #[cfg(test)]
        self.report
            .asked
            .borrow_mut()
            .push((path.clone(), value.is_some()));
        Some(Field::new(self.report, path, value?))
    }
}
