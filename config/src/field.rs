//! Reads one TOML value as what its key wants, and says what is wrong with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use crate::key;
use crate::reader::Table;
use crate::report::Report;
use crate::secret::Secret;

/// What a time-out in milliseconds may be: up to a day, and not nothing.
pub(crate) const TIME_MS: RangeInclusive<i128> = 1..=86_400_000;
/// What a size in bytes may be: up to 1 GiB.
pub(crate) const BYTES: RangeInclusive<i128> = 1..=1 << 30;

/// One value being read. The readers report what is wrong and then give `None`.
pub(crate) struct Field<'t> {
    report: &'t Report<'t>,
    path: String,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Field<'t> {
    pub(crate) fn new(
        report: &'t Report<'t>,
        path: String,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Self {
        Self {
            report,
            path,
            value,
        }
    }

    /// Reports an error about this value.
    pub(crate) fn error<T>(&self, message: String, remedy: impl Into<String>) -> Option<T> {
        self.report
            .add(self.value.span().start, &self.path, message, remedy);
        None
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = self.value.get_ref().type_str();
        self.error(format!("is of type {found}"), format!("write {expected}"))
    }

    pub(crate) fn is_string(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(crate) fn is_empty_array(&self) -> bool {
        self.value
            .get_ref()
            .as_array()
            .is_some_and(|array| array.is_empty())
    }

    pub(crate) fn text(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.as_ref().to_owned()),
            _ => self.wrong_type("a string"),
        }
    }

    /// A string that is not empty.
    pub(crate) fn name(&self) -> Option<String> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.error("is empty".into(), "write a value")
        } else {
            Some(text)
        }
    }

    /// The path of a URL, or the start of one.
    pub(crate) fn url_path(&self) -> Option<String> {
        let text = self.text()?;
        if text.starts_with('/') {
            return Some(text);
        }
        self.error(format!("`{text}` is not a path"), "start it with `/`")
    }

    pub(crate) fn file_path(&self) -> Option<PathBuf> {
        self.name().map(PathBuf::from)
    }

    pub(crate) fn secret(&self) -> Option<Secret> {
        self.name().map(Secret::new)
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        self.value
            .get_ref()
            .as_bool()
            .or_else(|| self.wrong_type("true or false"))
    }

    /// An integer within `range`.
    pub(crate) fn integer<T: TryFrom<i128>>(&self, range: RangeInclusive<i128>) -> Option<T> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            return self.wrong_type("an integer");
        };
        let parsed = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = parsed
            .filter(|value| range.contains(value))
            .and_then(|value| T::try_from(value).ok());
        value.or_else(|| {
            let remedy = format!("write a number from {} to {}", range.start(), range.end());
            self.error(format!("{integer} is out of range"), remedy)
        })
    }

    /// A number within `range`, with or without a fraction.
    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let text = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return self.wrong_type("a number"),
        };
        text.parse()
            .ok()
            .filter(|value| range.contains(value))
            .or_else(|| {
                let remedy = format!("write a number from {} to {}", range.start(), range.end());
                self.error(format!("{text} is out of range"), remedy)
            })
    }

    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        let text = self.text()?;
        text.parse().ok().or_else(|| {
            self.error(
                format!("`{text}` is not an address"),
                "write an IP address and a port: 127.0.0.1:8080 or [::1]:8080",
            )
        })
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.error(
            format!("no such value `{text}`"),
            format!("use one of: {}", known.join(", ")),
        )
    }

    /// An array, each element read by `read`; wrong elements are reported and left out.
    pub(crate) fn list<T>(&self, read: impl Fn(&Field<'t>) -> Option<T>) -> Option<Vec<T>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            return self.wrong_type("an array, [...]");
        };
        let elements = array.iter().enumerate().map(|(index, value)| {
            read(&Field {
                report: self.report,
                path: format!("{}[{index}]", self.path),
                value,
            })
        });
        Some(elements.flatten().collect())
    }

    /// An array of names.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        self.list(Field::name)
    }

    pub(crate) fn table(&self) -> Option<Table<'t>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            return self.wrong_type("a table");
        };
        let at = self.value.span().start;
        Some(Table::new(self.report, self.path.clone(), at, entries))
    }

    /// A table whose keys are names given by the user.
    pub(crate) fn map<T>(
        &self,
        check: fn(&str) -> Result<(), &'static str>,
        read: impl Fn(Table<'t>) -> T,
    ) -> Option<BTreeMap<String, T>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            return self.wrong_type("a table");
        };
        let mut map = BTreeMap::new();
        for (name, value) in entries.iter() {
            let text = name.get_ref().as_ref();
            let path = key::join(&self.path, text);
            if let Err(remedy) = check(text) {
                self.report.add(
                    name.span().start,
                    &path,
                    format!("`{text}` is not a name"),
                    remedy,
                );
            }
            let field = Field {
                report: self.report,
                path,
                value,
            };
            if let Some(value) = field.table().map(&read) {
                map.insert(text.to_owned(), value);
            }
        }
        Some(map)
    }

    /// A table whose keys are given by the user and whose values are read by `read`.
    pub(crate) fn values<T>(
        &self,
        read: impl Fn(&Field<'t>) -> Option<T>,
    ) -> Option<BTreeMap<String, T>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            return self.wrong_type("a table");
        };
        let values = entries.iter().filter_map(|(name, value)| {
            let name = name.get_ref().as_ref();
            let path = key::join(&self.path, name);
            let field = Field {
                report: self.report,
                path,
                value,
            };
            Some((name.to_owned(), read(&field)?))
        });
        Some(values.collect())
    }

    /// Any value, as JSON; dates become strings.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        use serde_json::Value;
        match self.value.get_ref() {
            DeValue::String(text) => Some(Value::from(text.as_ref())),
            DeValue::Boolean(flag) => Some(Value::from(*flag)),
            DeValue::Datetime(date) => Some(Value::from(date.to_string())),
            DeValue::Integer(_) => self
                .integer::<i64>(i64::MIN.into()..=i64::MAX.into())
                .map(Value::from),
            DeValue::Float(float) => {
                let number = float
                    .as_str()
                    .parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite());
                number.map(Value::from).or_else(|| {
                    self.error(
                        format!("{float} is no number JSON has"),
                        "write a finite number",
                    )
                })
            }
            DeValue::Array(_) => self.list(Field::json).map(Value::from),
            DeValue::Table(table) => Some(Value::Object(
                table
                    .iter()
                    .filter_map(|(name, value)| {
                        let name = name.get_ref().as_ref();
                        let path = key::join(&self.path, name);
                        let field = Field {
                            report: self.report,
                            path,
                            value,
                        };
                        Some((name.to_owned(), field.json()?))
                    })
                    .collect(),
            )),
        }
    }
}

/// What a filter, pipeline, cluster or key table may be called: it appears in metrics, in file
/// names and in dotted keys.
pub(crate) fn plain_name(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= 64 && name.chars().all(plain) {
        Ok(())
    } else {
        Err("use 1 to 64 letters, digits, `-` and `_`")
    }
}
