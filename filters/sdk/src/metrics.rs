//! Series of the filter's own in the gateway's `/metrics`, prefixed `weir_filter_`.

pub use crate::bindings::imports::weir::filter::metrics::Kind;
use crate::raw::metrics as raw;

/// A metric with its label values. Define it in [`Filter::new`](crate::Filter::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series(raw::Series);

impl Series {
    /// Defines a number that only grows.
    ///
    /// # Errors
    /// The host's reason: a bad name, or the same name with another shape.
    pub fn counter(name: &str, help: &str, labels: &[&str]) -> Result<Self, String> {
        Self::define(name, Kind::Counter, help, labels, &[])
    }

    /// Defines a number that is set.
    ///
    /// # Errors
    /// As [`Series::counter`].
    pub fn gauge(name: &str, help: &str, labels: &[&str]) -> Result<Self, String> {
        Self::define(name, Kind::Gauge, help, labels, &[])
    }

    /// Defines a distribution with these upper bounds.
    ///
    /// # Errors
    /// As [`Series::counter`].
    pub fn histogram(
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<Self, String> {
        Self::define(name, Kind::Histogram, help, labels, buckets)
    }

    fn define(
        name: &str,
        kind: Kind,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<Self, String> {
        raw::define(name, kind, help, &owned(labels), buckets).map(Self)
    }

    /// The series with these label values, in the order of the names. Keep it: a crossing with
    /// strings. Beyond `limits.metric_series_max` every new one is the series `other`.
    #[must_use]
    pub fn with_labels(self, values: &[&str]) -> Self {
        Self(raw::with_labels(self.0, &owned(values)))
    }

    /// Adds to a counter, sets a gauge, observes a histogram. 0.1 µs.
    pub fn observe(self, value: f64) {
        raw::observe(self.0, value);
    }
}

/// Several observations in one crossing.
pub fn observe_all(values: &[(Series, f64)]) {
    let values: Vec<(raw::Series, f64)> = values.iter().map(|(to, value)| (to.0, *value)).collect();
    raw::observe_all(&values);
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
