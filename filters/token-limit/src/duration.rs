//! Durations as rate limit headers write them: `1h2m3.5s`, `350ms`, `0s`.

use std::fmt::Write as _;

/// The duration of `ms` milliseconds.
pub(crate) fn text(ms: u32) -> String {
    let mut out = String::new();
    if ms == 0 {
        out.push_str("0s");
    } else if ms < 1_000 {
        let _ = write!(out, "{ms}ms");
    } else {
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        let (seconds, thousandths) = (ms / 1_000 % 60, ms % 1_000);
        if hours > 0 {
            let _ = write!(out, "{hours}h");
        }
        if hours > 0 || minutes > 0 {
            let _ = write!(out, "{minutes}m");
        }
        let _ = write!(out, "{seconds}");
        if thousandths > 0 {
            let fraction = format!("{thousandths:03}");
            let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
        }
        out.push('s');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn durations() {
        let table = [
            (0, "0s"),
            (350, "350ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (61_002, "1m1.002s"),
            (3_600_000, "1h0m0s"),
            (3_723_500, "1h2m3.5s"),
        ];
        for (ms, expected) in table {
            assert_eq!(text(ms), expected, "{ms} ms");
        }
    }
}
