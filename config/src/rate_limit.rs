//! The grammar of rate limits, `1000-S,50000-M`: of tokens and of requests.

/// Most tokens or requests in one budget: filters and JSON readers may hold numbers as doubles,
/// which are exact up to here.
pub const RATE_LIMIT_BUDGET_MAX: u64 = (1 << 53) - 1;

/// Parses a rate limit into `(budget, span in seconds)` pairs, as written.
///
/// A comma list of `<positive integer>-<S|M|H|D|W>`: second, minute, hour, day, week. Spaces
/// around the parts are ignored. The limits of input tokens, of output tokens and of requests are
/// written the same way.
///
/// # Errors
///
/// Says which part is empty, not of the form, zero, too large, or repeats a unit.
pub fn parse_token_rate_limit(text: &str) -> Result<Vec<(u64, u32)>, String> {
    let mut windows: Vec<(u64, u32)> = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(format!("`{text}` has an empty part"));
        }
        let window = window(part)?;
        if windows.iter().any(|(_, seconds)| *seconds == window.1) {
            return Err(format!("`{part}` repeats a unit of `{text}`"));
        }
        windows.push(window);
    }
    Ok(windows)
}

fn window(part: &str) -> Result<(u64, u32), String> {
    let form = || format!("`{part}` is not <positive integer>-<S|M|H|D|W>");
    let (budget, unit) = part.split_once('-').ok_or_else(form)?;
    let (budget, unit) = (budget.trim(), unit.trim());
    let seconds = match unit {
        "S" => 1,
        "M" => 60,
        "H" => 3_600,
        "D" => 86_400,
        "W" => 604_800,
        _ => return Err(form()),
    };
    if budget.is_empty() || !budget.bytes().all(|b| b.is_ascii_digit()) {
        return Err(form());
    }
    match budget.parse() {
        Ok(0) => Err(format!(
            "`{part}` allows nothing: the budget must be positive"
        )),
        Ok(budget @ 1..=RATE_LIMIT_BUDGET_MAX) => Ok((budget, seconds)),
        _ => Err(format!(
            "`{part}` is too large: at most {RATE_LIMIT_BUDGET_MAX}"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn reads_windows_as_written() {
        for (text, expected) in [
            ("1000-S", vec![(1000, 1)]),
            (
                " 1-W , 2-D,3 - H ",
                vec![(1, 604_800), (2, 86_400), (3, 3_600)],
            ),
            ("007-M", vec![(7, 60)]),
            ("9007199254740991-D", vec![(RATE_LIMIT_BUDGET_MAX, 86_400)]),
        ] {
            assert_eq!(parse_token_rate_limit(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("", "`` has an empty part"),
            ("1-S,", "`1-S,` has an empty part"),
            ("1-S,,2-M", "`1-S,,2-M` has an empty part"),
            ("1-S,2-S", "`2-S` repeats a unit of `1-S,2-S`"),
            ("0-S", "`0-S` allows nothing: the budget must be positive"),
            ("1-s", "`1-s` is not <positive integer>-<S|M|H|D|W>"),
            ("-1-S", "`-1-S` is not <positive integer>-<S|M|H|D|W>"),
            ("+1-S", "`+1-S` is not <positive integer>-<S|M|H|D|W>"),
            ("1.5-S", "`1.5-S` is not <positive integer>-<S|M|H|D|W>"),
            ("100", "`100` is not <positive integer>-<S|M|H|D|W>"),
            (
                "99999999999999999999-S",
                "`99999999999999999999-S` is too large: at most 9007199254740991",
            ),
            (
                "9007199254740992-S",
                "`9007199254740992-S` is too large: at most 9007199254740991",
            ),
        ] {
            assert_eq!(
                parse_token_rate_limit(text).unwrap_err(),
                expected,
                "{text}"
            );
        }
    }
}
