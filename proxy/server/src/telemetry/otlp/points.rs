//! What `/metrics` tells, in OTLP's words. One measurement, two faces: nothing is counted twice.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prometheus::proto::{self, MetricFamily, MetricType};

use crate::telemetry::genai;
use crate::telemetry::otlp::span::text;

/// The times between which points count, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// When the process began.
    pub(super) start_ns: u64,
    /// Now.
    pub(super) end_ns: u64,
}

/// All families, in requests of not much more than [`POINTS_MAX`] points.
pub(super) fn requests(families: &[MetricFamily], span: Span) -> Vec<Vec<Metric>> {
    let mut requests = Vec::new();
    let mut request = Vec::new();
    let mut points = 0;
    for family in families {
        let Some(metric) = metric(family, span) else {
            continue;
        };
        points += family.get_metric().len();
        request.push(metric);
        if points >= POINTS_MAX {
            requests.push(std::mem::take(&mut request));
            points = 0;
        }
    }
    requests.push(request);
    requests.retain(|request| !request.is_empty());
    requests
}

fn metric(family: &MetricFamily, span: Span) -> Option<Metric> {
    let numbers = |value: fn(&proto::Metric) -> f64| {
        let series = family.get_metric().iter();
        series
            .map(|series| number(series, value(series), span))
            .collect()
    };
    let temporality = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: numbers(|series| series.get_counter().get_value()),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge {
            data_points: numbers(|series| series.get_gauge().get_value()),
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: family
                .get_metric()
                .iter()
                .map(|series| histogram(series, span))
                .collect(),
            aggregation_temporality: temporality,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let (name, unit) = genai::open_telemetry_name(family.name());
    Some(Metric {
        name: name.to_owned(),
        description: family.help().to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

fn number(series: &proto::Metric, value: f64, span: Span) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: span.start_ns,
        time_unix_nano: span.end_ns,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(series: &proto::Metric, span: Span) -> HistogramDataPoint {
    let histogram = series.get_histogram();
    let count = histogram.get_sample_count();
    // Prometheus counts up to each bound, OTLP between two.
    let mut below = 0;
    let mut between = |up_to: u64| {
        let count = up_to.saturating_sub(below);
        below = below.max(up_to);
        count
    };
    let buckets = histogram.get_bucket();
    let mut bucket_counts: Vec<u64> = buckets
        .iter()
        .map(|bucket| between(bucket.cumulative_count()))
        .collect();
    bucket_counts.push(between(count));
    HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: span.start_ns,
        time_unix_nano: span.end_ns,
        // The buckets are read one after the other while others count: their sum is what counts.
        count: bucket_counts.iter().sum(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts,
        explicit_bounds: buckets.iter().map(proto::Bucket::upper_bound).collect(),
        ..HistogramDataPoint::default()
    }
}

/// In Prometheus an empty label is the same as none, and OpenTelemetry has no empty attributes.
fn attributes(series: &proto::Metric) -> Vec<KeyValue> {
    series
        .get_label()
        .iter()
        .filter(|label| !label.value().is_empty())
        .map(|label| text(genai::open_telemetry_label(label.name()), label.value()))
        .collect()
}

/// A point is some 300 bytes, and collectors take 4 MiB by gRPC.
const POINTS_MAX: usize = 4_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};

    use super::*;

    const SPAN: Span = Span {
        start_ns: 1,
        end_ns: 2,
    };

    #[test]
    fn families_become_metrics() {
        let registry = Registry::new();
        let counter = IntCounter::new("weir_c_total", "counts").unwrap();
        let gauge = IntGauge::new("weir_g", "goes up and down").unwrap();
        let name = "gen_ai_server_request_duration_seconds";
        let options = HistogramOpts::new(name, "lasts").buckets(vec![1.0, 2.0]);
        let histogram = HistogramVec::new(options, &["weir_tenant", "error_type"]).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        registry.register(Box::new(histogram.clone())).unwrap();
        counter.inc_by(3);
        gauge.set(-4);
        for seconds in [0.5, 1.5, 1.75, 8.0] {
            histogram.with_label_values(&["t", ""]).observe(seconds);
        }
        let requests = requests(&registry.gather(), SPAN);
        let [metrics] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        let [of_histogram, of_counter, of_gauge] = metrics.as_slice() else {
            panic!("{metrics:?}")
        };
        assert_eq!(of_histogram.name, "gen_ai.server.request.duration");
        assert_eq!(of_histogram.unit, "s");
        let Some(Data::Histogram(data)) = &of_histogram.data else {
            panic!("{of_histogram:?}")
        };
        let point = data.data_points.first().unwrap();
        assert_eq!(point.attributes, [text("weir.tenant", "t")]);
        assert_eq!(point.bucket_counts, [1, 2, 1]);
        assert_eq!(point.explicit_bounds, [1.0, 2.0]);
        assert_eq!((point.count, point.sum), (4, Some(11.75)));
        assert_eq!(of_counter.name, "weir_c_total");
        let Some(Data::Sum(data)) = &of_counter.data else {
            panic!("{of_counter:?}")
        };
        assert!(data.is_monotonic);
        let value = data.data_points.first().unwrap().value;
        assert_eq!(value, Some(Value::AsDouble(3.0)));
        let Some(Data::Gauge(data)) = &of_gauge.data else {
            panic!("{of_gauge:?}")
        };
        let value = data.data_points.first().unwrap().value;
        assert_eq!(value, Some(Value::AsDouble(-4.0)));
    }
}
