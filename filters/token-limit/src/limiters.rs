//! The limiters this instance has opened, by the text of their limit.

use std::cell::RefCell;
use std::rc::Rc;

use weir_sdk::Failure;
use weir_sdk::state::{Limiter, Scope};

use crate::limit::Limit;

/// A limit with the host's limiter for it.
pub(crate) struct Opened {
    pub(crate) limit: Limit,
    pub(crate) limiter: Limiter,
}

/// Text of a limit to its limiter; `None` for texts that are no limit.
pub(crate) struct Limiters {
    name: &'static str,
    scope: Scope,
    known: RefCell<Vec<(String, Option<Rc<Opened>>)>>,
}

impl Limiters {
    /// Limiters of one name: whatever their windows, they share what each caller has used, so
    /// that a changed limit does not forget it.
    pub(crate) fn new(name: &'static str, scope: Scope) -> Self {
        Self {
            name,
            scope,
            known: RefCell::new(Vec::new()),
        }
    }

    /// The limiter of a text, opened on first sight. `Ok(None)`: the text is no limit.
    pub(crate) fn of(&self, text: &str) -> Result<Option<Rc<Opened>>, Failure> {
        // A gateway has a handful of limits: a scan beats a hash.
        if let Some((_, opened)) = self.known.borrow().iter().find(|(known, _)| known == text) {
            return Ok(opened.clone());
        }
        let opened = match Limit::parse(text) {
            Ok(limit) => {
                let limiter = Limiter::open(self.name, &limit.windows(), self.scope)?;
                Some(Rc::new(Opened { limit, limiter }))
            }
            Err(message) => {
                weir_sdk::error!("ignoring the token rate limit of a model: {message}");
                None
            }
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= LIMITS_MAX {
            known.clear();
        }
        known.push((text.to_owned(), opened.clone()));
        Ok(opened)
    }
}

/// Texts remembered; beyond it starts over.
const LIMITS_MAX: usize = 64;
