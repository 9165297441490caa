//! The interface `metrics`: series of a filter, shared by its instances and generations.

use std::collections::HashMap;
use std::fmt::Write;

use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry,
};

use crate::bindings::weir::filter::metrics::{Host, Kind};
use crate::capability::host::cut;
use crate::guest_state::GuestState;

impl Host for GuestState {
    fn define(
        &mut self,
        name: String,
        kind: Kind,
        help: String,
        label_names: Vec<String>,
        buckets: Vec<f64>,
    ) -> Result<u32, String> {
        if self.pure {
            return Err("metrics are defined at init".into());
        }
        let asked = Definition {
            name: &name,
            kind,
            help: &help,
            label_names: &label_names,
            buckets,
        };
        self.metrics
            .define(asked, self.filter.limits.metric_series_max)
    }

    fn with_labels(&mut self, of: u32, values: Vec<String>) -> u32 {
        if self.pure {
            return NOWHERE;
        }
        self.metrics
            .with_labels(of, &values, self.filter.limits.metric_series_max)
    }

    fn observe(&mut self, to: u32, value: f64) {
        if !self.pure {
            self.metrics.observe(&[(to, value)]);
        }
    }

    fn observe_all(&mut self, values: Vec<(u32, f64)>) {
        if !self.pure {
            self.metrics.observe(&values);
        }
    }
}

/// All series of one filter. Ids are places in a list that only grows, so that they stay valid in
/// every instance.
pub(crate) struct FilterMetrics {
    prefix: String,
    registry: Registry,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    families: Vec<Family>,
    series: Vec<Series>,
    children: HashMap<(u32, Box<[String]>), u32>,
    /// Series that are shown, those named `other` not counted.
    count: u32,
}

struct Family {
    name: String,
    kind: Kind,
    label_names: Vec<String>,
    vector: Vector,
    id: u32,
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

enum Series {
    /// Has labels, and no values for them yet: the index of the family.
    Family(usize),
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

struct Definition<'a> {
    name: &'a str,
    kind: Kind,
    help: &'a str,
    label_names: &'a [String],
    buckets: Vec<f64>,
}

impl FilterMetrics {
    pub(crate) fn new(filter: &str, registry: Registry) -> Self {
        Self {
            prefix: format!("weir_filter_{}_", sanitised(filter)),
            registry,
            state: RwLock::default(),
        }
    }

    /// The series of a name, new or known; of a known one help and buckets stay as they are.
    fn define(&self, asked: Definition<'_>, series_max: u32) -> Result<u32, String> {
        let name = format!(
            "{}{}",
            self.prefix,
            sanitised(cut(asked.name, NAME_BYTES_MAX))
        );
        let label_names: Vec<String> = asked
            .label_names
            .iter()
            .map(|name| sanitised(cut(name, NAME_BYTES_MAX)))
            .collect();
        let mut state = self.state.write();
        if let Some(known) = state.families.iter().find(|family| family.name == name) {
            if known.kind != asked.kind || known.label_names != label_names {
                return Err(format!(
                    "`{name}` is defined with another kind or other labels"
                ));
            }
            return Ok(known.id);
        }
        if state.families.len() >= FAMILIES_MAX || state.count >= series_max {
            return Err("too many metrics".into());
        }
        let asked = Definition {
            name: &name,
            label_names: &label_names,
            ..asked
        };
        let vector = vector(&asked, &self.registry)?;
        let index = state.families.len();
        let series = if label_names.is_empty() {
            state.count += 1;
            vector.child(&[]).ok_or("cannot be made")?
        } else {
            Series::Family(index)
        };
        let id = state.push(series);
        state.families.push(Family {
            kind: asked.kind,
            vector,
            id,
            name: name.clone(),
            label_names: label_names.clone(),
        });
        Ok(id)
    }

    /// The child of a family; [`NOWHERE`] when there is no such family or the number of values is
    /// another than that of its labels.
    fn with_labels(&self, of: u32, values: &[String], series_max: u32) -> u32 {
        let values: Box<[String]> = values
            .iter()
            .take(LABELS_MAX + 1)
            .map(|value| cut(value, LABEL_BYTES_MAX).to_owned())
            .collect();
        let key = (of, values);
        if let Some(known) = self.state.read().children.get(&key) {
            return *known;
        }
        let mut state = self.state.write();
        state.child(key, series_max).unwrap_or(NOWHERE)
    }

    fn observe(&self, values: &[(u32, f64)]) {
        let state = self.state.read();
        for (to, value) in values {
            match state.at(*to) {
                Some(Series::Counter(counter)) if *value >= 0.0 && value.is_finite() => {
                    counter.inc_by(*value)
                }
                Some(Series::Gauge(gauge)) if !value.is_nan() => gauge.set(*value),
                Some(Series::Histogram(histogram)) if !value.is_nan() => histogram.observe(*value),
                _ => {}
            }
        }
    }
}

impl State {
    /// Ids count from 1; 0 is [`NOWHERE`].
    fn push(&mut self, series: Series) -> u32 {
        self.series.push(series);
        u32::try_from(self.series.len()).unwrap_or(NOWHERE)
    }

    fn at(&self, id: u32) -> Option<&Series> {
        self.series.get((id as usize).checked_sub(1)?)
    }

    fn child(&mut self, key: (u32, Box<[String]>), series_max: u32) -> Option<u32> {
        if let Some(known) = self.children.get(&key) {
            return Some(*known);
        }
        let Series::Family(family) = self.at(key.0)? else {
            return None;
        };
        let family = self.families.get(*family)?;
        if family.label_names.len() != key.1.len() {
            return None;
        }
        let full = self.count >= series_max;
        let key = if full {
            (key.0, vec![OTHER.to_owned(); key.1.len()].into())
        } else {
            key
        };
        if let Some(other) = self.children.get(&key) {
            return Some(*other);
        }
        let values: Vec<&str> = key.1.iter().map(String::as_str).collect();
        let series = family.vector.child(&values)?;
        let id = self.push(series);
        self.count += u32::from(!full);
        self.children.insert(key, id);
        Some(id)
    }
}

impl Vector {
    fn child(&self, values: &[&str]) -> Option<Series> {
        match self {
            Self::Counter(vector) => vector
                .get_metric_with_label_values(values)
                .ok()
                .map(Series::Counter),
            Self::Gauge(vector) => vector
                .get_metric_with_label_values(values)
                .ok()
                .map(Series::Gauge),
            Self::Histogram(vector) => vector
                .get_metric_with_label_values(values)
                .ok()
                .map(Series::Histogram),
        }
    }
}

fn vector(asked: &Definition<'_>, registry: &Registry) -> Result<Vector, String> {
    if asked.label_names.len() > LABELS_MAX {
        return Err(format!("at most {LABELS_MAX} labels"));
    }
    let mut help = cut(asked.help, HELP_BYTES_MAX).to_owned();
    if help.is_empty() {
        // The registry refuses a metric without.
        let _ = write!(help, "{}", asked.name);
    }
    let labels: Vec<&str> = asked.label_names.iter().map(String::as_str).collect();
    let said = |error: prometheus::Error| error.to_string();
    let vector = match asked.kind {
        Kind::Counter => {
            Vector::Counter(CounterVec::new(Opts::new(asked.name, help), &labels).map_err(said)?)
        }
        Kind::Gauge => {
            Vector::Gauge(GaugeVec::new(Opts::new(asked.name, help), &labels).map_err(said)?)
        }
        Kind::Histogram => {
            let ascending = asked.buckets.is_sorted_by(|one, other| one < other);
            if asked.buckets.len() > BUCKETS_MAX
                || !ascending
                || asked.buckets.iter().any(|b| !b.is_finite())
            {
                return Err(format!("at most {BUCKETS_MAX} finite buckets, ascending"));
            }
            let mut opts = HistogramOpts::new(asked.name, help);
            if !asked.buckets.is_empty() {
                opts = opts.buckets(asked.buckets.clone());
            }
            Vector::Histogram(HistogramVec::new(opts, &labels).map_err(said)?)
        }
    };
    let collector: Box<dyn Collector> = match &vector {
        Vector::Counter(vector) => Box::new(vector.clone()),
        Vector::Gauge(vector) => Box::new(vector.clone()),
        Vector::Histogram(vector) => Box::new(vector.clone()),
    };
    registry.register(collector).map_err(said)?;
    Ok(vector)
}

/// Lower-case letters, digits and `_`.
fn sanitised(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.chars().map(safe).collect()
}

/// The series that observations are lost in.
const NOWHERE: u32 = 0;
const OTHER: &str = "other";
const FAMILIES_MAX: usize = 256;
const LABELS_MAX: usize = 8;
const BUCKETS_MAX: usize = 64;
const LABEL_BYTES_MAX: u32 = 128;
const NAME_BYTES_MAX: u32 = 128;
const HELP_BYTES_MAX: u32 = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn asked<'a>(name: &'a str, kind: Kind, label_names: &'a [String]) -> Definition<'a> {
        Definition {
            name,
            kind,
            help: "",
            label_names,
            buckets: vec![1.0, 2.0],
        }
    }

    fn shown(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn defining_again_gives_the_same_and_conflicts_are_told() {
        let metrics = FilterMetrics::new("my-filter", Registry::new());
        let label = ["a".to_owned()];
        let id = metrics
            .define(asked("Hits.total", Kind::Counter, &label), 10)
            .unwrap();
        assert_eq!(
            metrics.define(asked("hits_total", Kind::Counter, &label), 10),
            Ok(id)
        );
        assert!(
            metrics
                .define(asked("hits_total", Kind::Gauge, &label), 10)
                .is_err()
        );
        assert!(
            metrics
                .define(asked("hits_total", Kind::Counter, &[]), 10)
                .is_err()
        );
        assert!(metrics.define(asked("h", Kind::Histogram, &[]), 10).is_ok());
    }

    #[test]
    fn series_beyond_the_bound_become_other() {
        let registry = Registry::new();
        let metrics = FilterMetrics::new("f", registry.clone());
        let family = metrics
            .define(asked("c", Kind::Counter, &["k".to_owned()]), 2)
            .unwrap();
        for n in 0..10 {
            let id = metrics.with_labels(family, &[n.to_string()], 2);
            metrics.observe(&[
                (id, 1.0),
                (id, -1.0),
                (id, f64::NAN),
                (family, 1.0),
                (99, 1.0),
                (0, 1.0),
            ]);
        }
        let expected = [
            r#"weir_filter_f_c{k="0"} 1"#,
            r#"weir_filter_f_c{k="1"} 1"#,
            r#"weir_filter_f_c{k="other"} 8"#,
        ];
        assert_eq!(shown(&registry), expected);
        assert_eq!(metrics.with_labels(family, &[], 2), NOWHERE);
        assert!(metrics.define(asked("d", Kind::Gauge, &[]), 2).is_err());
    }
}
