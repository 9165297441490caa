//! The grammar of a limit: `1000-S,5000-M`.

#[cfg(test)]
use std::fmt::{self, Display};

use weir_sdk::state::Window;

/// Windows of which all must have room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    parts: Vec<(u64, Span)>,
}

/// Length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Second,
    Minute,
    Hour,
    Day,
    Week,
}

impl Limit {
    /// Parses `<positive int>-<S|M|H|D|W>`, comma-separated, no unit twice, blanks allowed
    /// around the parts.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(u64, Span)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let wrong = || format!("`{part}` is not a limit; write for example `1000-S,5000-M`");
            let (budget, unit) = part.split_once('-').ok_or_else(wrong)?;
            let (budget, unit) = (budget.trim(), unit.trim());
            // `u64::from_str` takes a sign.
            if !budget.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong());
            }
            let budget: u64 = budget.parse().map_err(|_| wrong())?;
            let span = Span::parse(unit)
                .ok_or_else(|| format!("`{unit}` is not a unit; use S, M, H, D or W"))?;
            if budget == 0 || budget > BUDGET_MAX {
                return Err(format!(
                    "the budget of `{part}` must be between 1 and {BUDGET_MAX}"
                ));
            }
            if parts.iter().any(|(_, known)| *known == span) {
                return Err(format!("the unit `{unit}` is given twice"));
            }
            // Shortest first, as hosts number windows; a sort would be 6 KB of code.
            let at = parts.partition_point(|(_, known)| known.seconds() < span.seconds());
            parts.insert(at, (budget, span));
        }
        Ok(Self { parts })
    }

    /// For the host's limiter, shortest first.
    pub(crate) fn windows(&self) -> Vec<Window> {
        self.parts
            .iter()
            .map(|(budget, span)| Window {
                budget: *budget,
                seconds: span.seconds(),
            })
            .collect()
    }

    /// The window at a position of [`Limit::windows`].
    pub(crate) fn span(&self, position: u32) -> Option<Span> {
        self.parts.get(position as usize).map(|(_, span)| *span)
    }
}

#[cfg(test)]
impl Display for Limit {
    /// As [`Limit::parse`] reads it, without blanks, shortest window first.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (budget, span)) in self.parts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(out, "{separator}{budget}-{}", span.letter())?;
        }
        Ok(())
    }
}

impl Span {
    fn parse(unit: &str) -> Option<Self> {
        Some(match unit {
            "S" => Self::Second,
            "M" => Self::Minute,
            "H" => Self::Hour,
            "D" => Self::Day,
            "W" => Self::Week,
            _ => return None,
        })
    }

    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
        }
    }

    #[cfg(test)]
    fn letter(self) -> char {
        match self {
            Self::Second => 'S',
            Self::Minute => 'M',
            Self::Hour => 'H',
            Self::Day => 'D',
            Self::Week => 'W',
        }
    }

    /// In a message.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }
}

/// Numbers in JSON and in some guests are doubles: exact up to here.
const BUDGET_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let table = [
            ("1000-S", Ok("1000-S")),
            ("1000-S,5000-M", Ok("1000-S,5000-M")),
            (" 3-W , 1 - H,2-D ", Ok("1-H,2-D,3-W")),
            ("", Err("`` is not a limit")),
            ("1000", Err("`1000` is not a limit")),
            ("0-S", Err("the budget of `0-S`")),
            ("-1-S", Err("`-1-S` is not a limit")),
            ("+1-S", Err("`+1-S` is not a limit")),
            ("1-s", Err("`s` is not a unit")),
            ("1-MO", Err("`MO` is not a unit")),
            ("1-S,2-S", Err("the unit `S` is given twice")),
            ("1-S,", Err("`` is not a limit")),
            (
                "99999999999999999999-S",
                Err("`99999999999999999999-S` is not a limit"),
            ),
            ("9007199254740992-S", Err("the budget of")),
        ];
        for (text, expected) in table {
            match (Limit::parse(text), expected) {
                (Ok(limit), Ok(written)) => assert_eq!(limit.to_string(), written, "{text:?}"),
                (Err(message), Err(start)) => {
                    assert!(message.starts_with(start), "{text:?}: {message}")
                }
                (found, _) => assert!(found.is_err() && expected.is_err(), "{text:?}: {found:?}"),
            }
        }
    }
}
