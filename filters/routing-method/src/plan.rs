//! What was decided for a model before any of its requests: method, settings, the bytes of its keys.

use std::cell::RefCell;
use std::rc::Rc;

use weir_sdk::candidates::Field;
use weir_sdk::{InternId, RequestView, exchange, host};

use crate::config::Config;
use crate::method::Method;

/// Method and settings of a model of a function.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    pub(crate) settings: Config,
    /// What keys of this model are hashed with: version, seed, function and model.
    base: Vec<u8>,
}

impl Plan {
    pub(crate) fn new(method: Method, settings: Config, request: &RequestView) -> Self {
        let mut base = vec![KEY_VERSION];
        Field::Seed.append(&mut base, settings.seed.as_bytes());
        let names = [
            (Field::RoutingKey, request.routing_key),
            (Field::Model, request.model),
        ];
        for (field, name) in names {
            field.append(&mut base, host::name_of(name).as_bytes());
        }
        Self {
            method,
            settings,
            base,
        }
    }

    /// What a candidate's name is hashed behind, with an affinity key in it.
    pub(crate) fn ranking_prefix(&self, affinity_key: &str) -> Vec<u8> {
        let mut bytes = self.key(affinity_key);
        Field::Candidate.begin(&mut bytes);
        bytes
    }

    /// The same for nodes of a ring, which belong to no key.
    pub(crate) fn ring_prefix(&self) -> Vec<u8> {
        let mut bytes = self.base.clone();
        Field::Candidate.begin(&mut bytes);
        bytes
    }

    /// A key on the ring.
    pub(crate) fn key(&self, affinity_key: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.base.len() + affinity_key.len() + 12);
        bytes.extend_from_slice(&self.base);
        Field::AffinityKey.append(&mut bytes, affinity_key.as_bytes());
        bytes
    }
}

/// Plans by the request's settings, function and model.
#[derive(Default)]
pub(crate) struct Plans(RefCell<Vec<(Key, Rc<Plan>)>>);

type Key = (InternId, InternId, InternId, String);

impl Plans {
    /// The plan of a request with this expression (empty = none); made when there is none yet.
    pub(crate) fn of<E>(
        &self,
        request: &RequestView,
        expression: &str,
        make: impl FnOnce(Option<String>) -> Result<Plan, E>,
    ) -> Result<Rc<Plan>, E> {
        let (settings, function, model) = (request.settings, request.routing_key, request.model);
        let same = |(key, _): &&(Key, Rc<Plan>)| {
            key.1 == function && key.2 == model && key.0 == settings && key.3 == expression
        };
        if let Some((_, plan)) = self.0.borrow().iter().find(same) {
            return Ok(Rc::clone(plan));
        }
        let named = (settings != 0)
            .then(|| exchange::attribute(METHOD))
            .flatten();
        let plan = Rc::new(make(named)?);
        // Settings that there was no number for are not the same the next time.
        if settings != u32::MAX {
            let mut plans = self.0.borrow_mut();
            if plans.len() >= PLANS_MAX {
                plans.clear();
            }
            let key = (settings, function, model, expression.to_owned());
            plans.push((key, Rc::clone(&plan)));
        }
        Ok(plan)
    }
}

/// First byte of what is hashed.
const KEY_VERSION: u8 = 0x01;
const METHOD: &str = "weir.routing-method";
/// Plans kept by an instance; beyond it starts over.
const PLANS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use weir_sdk::testing::Exchange;

    use super::*;

    #[test]
    fn the_bytes_of_keys() {
        let settings = Config {
            seed: "s".to_owned(),
            ..Config::default()
        };
        let mut exchange = Exchange::new().model("fn", "m");
        let view = exchange.view();
        let plan = exchange.run(|| Plan::new(Method::Pulsar, settings, &view));
        let expected: &[&[u8]] = &[
            b"\x01",
            b"\x01\xff\x01\0\0\0\0\0\0\0s",
            b"\x02\xff\x02\0\0\0\0\0\0\0fn",
            b"\x03\xff\x01\0\0\0\0\0\0\0m",
            b"\x04\xff\x03\0\0\0\0\0\0\0key",
        ];
        assert_eq!(plan.key("key"), expected.concat());
        let ranked = [&expected.concat()[..], b"\x05\xff"].concat();
        assert_eq!(plan.ranking_prefix("key"), ranked);
        let ring = [&expected[..4].concat()[..], b"\x05\xff"].concat();
        assert_eq!(plan.ring_prefix(), ring);
    }
}
