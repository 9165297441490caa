//! Tokens that were found good a moment ago.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use weir_sdk::Principal;

/// Principals by the SHA-256 of their token. It lives in one instance, and no longer than a minute:
/// what has changed since is noticed then.
#[derive(Default)]
pub(super) struct Verified {
    entries: RefCell<HashMap<[u8; 32], Entry>>,
}

struct Entry {
    until: u64,
    principal: Rc<Principal>,
}

impl Verified {
    /// Who presents the token with this digest, if that is still known in this second.
    pub(super) fn find(&self, digest: &[u8; 32], now: u64) -> Option<Rc<Principal>> {
        let entries = self.entries.borrow();
        let entry = entries.get(digest).filter(|entry| now < entry.until)?;
        Some(Rc::clone(&entry.principal))
    }

    /// Remembers who presents it, for a minute or until the second in which it expires.
    pub(super) fn keep(&self, digest: [u8; 32], expires: u64, now: u64, principal: &Rc<Principal>) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= TOKENS_MAX {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= TOKENS_MAX {
            entries.clear();
        }
        let entry = Entry {
            until: expires.min(now.saturating_add(SECONDS_MAX)),
            principal: Rc::clone(principal),
        };
        entries.insert(digest, entry);
    }
}

const TOKENS_MAX: usize = 1_024;
const SECONDS_MAX: u64 = 60;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn digest(number: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn a_minute_or_until_it_expires() {
        let verified = Verified::default();
        let who = Rc::new(Principal::new("a", "t"));
        verified.keep(digest(0), 1_000, 100, &who);
        verified.keep(digest(1), 130, 100, &who);
        for (number, now, expected) in [
            (0, 100, true),
            (0, 159, true),
            (0, 160, false),
            (1, 129, true),
            (1, 130, false),
            (2, 100, false),
        ] {
            let found = verified.find(&digest(number), now);
            assert_eq!(found.is_some(), expected, "{number} {now}");
        }
    }

    #[test]
    fn old_ones_make_room() {
        let verified = Verified::default();
        let who = Rc::new(Principal::new("a", "t"));
        for number in 0..TOKENS_MAX {
            let now = if number == 0 { 200 } else { 100 };
            verified.keep(digest(number), 1_000, now, &who);
        }
        verified.keep(digest(TOKENS_MAX), 1_000, 200, &who);
        assert_eq!(verified.entries.borrow().len(), 2);
        assert!(verified.find(&digest(0), 200).is_some());
        for number in 0..3 * TOKENS_MAX {
            verified.keep(digest(number), 1_000, 200, &who);
        }
        assert!(verified.entries.borrow().len() <= TOKENS_MAX);
    }
}
