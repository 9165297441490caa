//! The result: a table for people, `bench/chain.json` beside the build for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::contestant::{NAMES, Stage, programs};
use crate::pin::Pins;
use crate::round::{Kind, Round, Sample};

/// Prints the table and writes the file.
///
/// # Errors
/// When the file cannot be written, or a contestant has ended.
pub(crate) fn write(stage: &Stage, rounds: &[Round], pins: &Pins) -> io::Result<()> {
    let result = result(stage, rounds, pins)?;
    io::stdout().write_all(table(&result).as_bytes())?;
    let folder = programs()?.parent().map(|target| target.join("bench"));
    let folder = folder.ok_or_else(|| io::Error::other("no target directory"))?;
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("chain.json");
    std::fs::write(&path, format!("{result:#}\n"))?;
    writeln!(io::stdout(), "\nwritten to {}", path.display())
}

fn result(stage: &Stage, rounds: &[Round], pins: &Pins) -> io::Result<Value> {
    let mut contestants = Vec::new();
    for (index, contestant) in stage.contestants.iter().enumerate() {
        contestants.push(json!({
            "name": contestant.name,
            "rss_idle_mb": megabytes(contestant.rss_idle),
            "rss_loaded_mb": megabytes(contestant.process.rss_bytes()?),
            "unary": medians(rounds, Kind::Unary, index),
            "sse": medians(rounds, Kind::Stream, index),
            "lone": medians(rounds, Kind::Lone, index),
        }));
    }
    let raw: Vec<Value> = rounds.iter().map(raw_round).collect();
    let cost = |index| {
        json!({
            "cpu_ratio": ratio(rounds, Kind::Unary, index, BARE, |s| s.cpu_us_per_request),
            "rps_ratio": ratio(rounds, Kind::Unary, index, BARE, |s| s.requests_per_second),
            "sse_ratio": ratio(rounds, Kind::Stream, index, BARE, |s| s.events_per_cpu_second),
        })
    };
    let tunnel = json!({
        "cpu_ratio": ratio(rounds, Kind::Unary, TUNNEL, FULL, |s| s.cpu_us_per_request),
        "p50_ratio": ratio(rounds, Kind::Unary, TUNNEL, FULL, |s| s.p50_us),
        "lone_p50_ratio": ratio(rounds, Kind::Lone, TUNNEL, FULL, |s| s.p50_us),
        "sse_ratio": ratio(rounds, Kind::Stream, TUNNEL, FULL, |s| s.events_per_cpu_second),
    });
    // The figures one compares over time are of all four filters and stand at the top level.
    let mut result = cost(FULL);
    if let Value::Object(members) = &mut result {
        let full = stage.contestants.get(FULL);
        let idle = full.map(|full| megabytes(full.rss_idle));
        members.insert("rss_idle_mb".into(), json!(idle));
        members.insert("rss_idle_cold_mb".into(), json!(megabytes(stage.rss_cold)));
        members.insert("empty_chain".into(), cost(EMPTY));
        members.insert("tunnel".into(), tunnel);
        members.insert("pinned".into(), json!(pins.pinned()));
        members.insert("contestants".into(), json!(contestants));
        members.insert("rounds".into(), json!(raw));
    }
    Ok(result)
}

fn raw_round(round: &Round) -> Value {
    let samples: Vec<Value> = round
        .samples
        .iter()
        .map(|sample| members(*sample))
        .collect();
    json!({ "kind": round.kind.name(), "samples": samples })
}

fn medians(rounds: &[Round], kind: Kind, index: usize) -> Value {
    let of = |figure: fn(&Sample) -> f64| {
        let samples = rounds.iter().filter(|round| round.kind == kind);
        median(
            samples
                .filter_map(|round| round.samples.get(index))
                .map(figure)
                .collect(),
        )
    };
    members(Sample {
        requests_per_second: of(|s| s.requests_per_second),
        p50_us: of(|s| s.p50_us),
        p99_us: of(|s| s.p99_us),
        cpu_us_per_request: of(|s| s.cpu_us_per_request),
        events_per_cpu_second: of(|s| s.events_per_cpu_second),
        cpu_share: of(|s| s.cpu_share),
    })
}

fn members(sample: Sample) -> Value {
    json!({
        "requests_per_second": sample.requests_per_second,
        "p50_us": sample.p50_us,
        "p99_us": sample.p99_us,
        "cpu_us_per_request": sample.cpu_us_per_request,
        "events_per_cpu_second": sample.events_per_cpu_second,
        "cpu_share": sample.cpu_share,
    })
}

/// Median over the rounds of a contestant's figure divided by another one's in that round.
fn ratio(
    rounds: &[Round],
    kind: Kind,
    index: usize,
    against: usize,
    figure: fn(&Sample) -> f64,
) -> f64 {
    let of_kind = rounds.iter().filter(|round| round.kind == kind);
    let ratios = of_kind.filter_map(|round| {
        let (own, other) = (round.samples.get(index)?, round.samples.get(against)?);
        Some(figure(own) / figure(other))
    });
    median(ratios.collect())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = figures
        .get(figures.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

fn table(result: &Value) -> String {
    let mut text = format!(
        "\n{:<13}{:>7}{:>10}{:>9}{:>9}{:>10}{:>12}{:>6}{:>10}{:>10}\n",
        "", "", "req/s", "p50 us", "p99 us", "CPU us/r", "ev/CPU s", "CPU", "idle MB", "load MB"
    );
    for contestant in result["contestants"].as_array().into_iter().flatten() {
        for kind in Kind::ALL {
            let medians = &contestant[kind.name()];
            let figure = |name: &str| medians.get(name).map_or(f64::NAN, number);
            text += &format!(
                "{:<13}{:>7}{:>10.0}{:>9.0}{:>9.0}{:>10.1}{:>12.0}{:>6.2}{:>10.1}{:>10.1}\n",
                contestant["name"].as_str().unwrap_or_default(),
                kind.name(),
                figure("requests_per_second"),
                figure("p50_us"),
                figure("p99_us"),
                figure("cpu_us_per_request"),
                figure("events_per_cpu_second"),
                figure("cpu_share"),
                number(&contestant["rss_idle_mb"]),
                number(&contestant["rss_loaded_mb"]),
            );
        }
    }
    text += "\nagainst the bare proxy (median of the rounds' ratios)\n";
    for (name, cost) in [
        (NAMES[EMPTY], &result["empty_chain"]),
        (NAMES[FULL], result),
    ] {
        text += &format!(
            "{name:<13} CPU per request {:.3}   requests/s {:.3}   events per CPU s {:.3}\n",
            number(&cost["cpu_ratio"]),
            number(&cost["rps_ratio"]),
            number(&cost["sse_ratio"]),
        );
    }
    let tunnel = &result["tunnel"];
    text += &format!(
        "\nover a tunnel against a direct connection, both with four filters\n\
         p50 {:.3}, of a lone caller {:.3}   CPU per request, agent and all {:.3}   \
         events per CPU s {:.3}\n",
        number(&tunnel["p50_ratio"]),
        number(&tunnel["lone_p50_ratio"]),
        number(&tunnel["cpu_ratio"]),
        number(&tunnel["sse_ratio"]),
    );
    text
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Places in [`NAMES`].
const BARE: usize = 0;
const EMPTY: usize = 1;
const FULL: usize = 2;
const TUNNEL: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn round(kind: Kind, bare: f64, full: f64) -> Round {
        let sample = |cpu| Sample {
            cpu_us_per_request: cpu,
            ..Sample::default()
        };
        Round {
            kind,
            samples: [sample(bare), sample(1.0), sample(full), sample(1.0)],
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds = [
            round(Kind::Unary, 10.0, 11.0),
            round(Kind::Unary, 100.0, 120.0),
            round(Kind::Stream, 1.0, 9.0),
            round(Kind::Unary, 20.0, 18.0),
        ];
        assert_eq!(
            ratio(&rounds, Kind::Unary, FULL, BARE, |s| s.cpu_us_per_request),
            1.1
        );
        assert_eq!(
            ratio(&rounds, Kind::Stream, FULL, BARE, |s| s.cpu_us_per_request),
            9.0
        );
    }

    #[test]
    fn median_of_an_even_number_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
