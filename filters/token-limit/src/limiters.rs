//! The limiters this instance has opened, by dimension and text of their limit.

use std::cell::RefCell;
use std::rc::Rc;

use weir_sdk::Failure;
use weir_sdk::state::{HeaderForms, Limiter, Scope};

use crate::dimension::Dimension;
use crate::limit::Limit;

/// A limit with the host's limiter for it.
pub(crate) struct Opened {
    pub(crate) dimension: Dimension,
    pub(crate) limit: Limit,
    pub(crate) limiter: Limiter,
}

/// Text of a limit to its limiter; `None` for texts that are no limit.
pub(crate) struct Limiters {
    scope: Scope,
    forms: HeaderForms,
    known: RefCell<Vec<(Dimension, String, Option<Rc<Opened>>)>>,
}

impl Limiters {
    /// Limiters of a dimension share what each caller has used, whatever their windows, so that a
    /// changed limit does not forget it.
    pub(crate) fn new(scope: Scope, forms: HeaderForms) -> Self {
        Self {
            scope,
            forms,
            known: RefCell::new(Vec::new()),
        }
    }

    /// The limiter of a text, opened on first sight. `Ok(None)`: the text is no limit.
    pub(crate) fn of(
        &self,
        dimension: Dimension,
        text: &str,
    ) -> Result<Option<Rc<Opened>>, Failure> {
        // A gateway has a handful of limits: a scan beats a hash.
        let same = |(of, known, _): &&(Dimension, String, Option<Rc<Opened>>)| {
            *of == dimension && known == text
        };
        if let Some((_, _, opened)) = self.known.borrow().iter().find(same) {
            return Ok(opened.clone());
        }
        let opened = match Limit::parse(text) {
            Ok(limit) => Some(Rc::new(self.open(dimension, limit)?)),
            Err(message) => {
                let noun = dimension.noun();
                weir_sdk::error!("ignoring a limit of {noun}: {message}");
                None
            }
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= LIMITS_MAX {
            known.clear();
        }
        known.push((dimension, text.to_owned(), opened.clone()));
        Ok(opened)
    }

    fn open(&self, dimension: Dimension, limit: Limit) -> Result<Opened, Failure> {
        let limiter = Limiter::open(dimension.limiter_name(), &limit.windows(), self.scope)?;
        if !self.forms.is_empty() {
            limiter.announce(dimension.unit(), self.forms)?;
        }
        Ok(Opened {
            dimension,
            limit,
            limiter,
        })
    }
}

/// Texts remembered; beyond it starts over.
const LIMITS_MAX: usize = 256;
