//! What the fake host knows, and the thread-local through which the SDK reaches it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use super::buckets::Bucket;
use weir_routing::{CandidateSet, KeyHashes};

use crate::candidates::{Backend, Figure, Load, Session};
use crate::exchange::ExchangeMeta;
use crate::host::Level;
use crate::http_client::{Request, Response};
use crate::state::{HeaderForms, Unit, Versioned, Window};
use crate::types::{Failure, Principal, SessionKey, Transport};

/// A limiter: its name, its windows and the buckets of each key.
pub(crate) struct FakeLimiter {
    pub(crate) name: String,
    pub(crate) windows: Vec<Window>,
    pub(crate) buckets: HashMap<String, Vec<Bucket>>,
    /// How callers are told of it, if they are.
    pub(crate) told: Option<(Unit, HeaderForms)>,
}

/// A key's value with the time at which it ends.
pub(crate) struct Kept {
    pub(crate) value: Versioned,
    pub(crate) until_ms: Option<u64>,
}

/// Everything the fake host answers from.
pub(crate) struct World {
    pub(crate) meta: ExchangeMeta,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) session_keys: Vec<SessionKey>,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) principal: Option<Principal>,
    pub(crate) response: Option<(u16, Vec<(String, Vec<u8>)>)>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) keys: Vec<(String, Vec<u8>, Principal)>,
    pub(crate) key_sets: HashMap<String, String>,
    pub(crate) plaintext: Vec<String>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) loads: Vec<Load>,
    pub(crate) figures: Vec<(u32, Figure, f64)>,
    /// What the fake host made of the three above.
    pub(crate) set: Option<CandidateSet>,
    pub(crate) key_hashes: KeyHashes,
    pub(crate) affinity_key: Option<String>,
    pub(crate) session: Session,
    pub(crate) est_input_tokens: u32,
    pub(crate) excluded: Vec<u32>,
    pub(crate) cursor: u64,
    pub(crate) random: VecDeque<u64>,
    pub(crate) now_ms: u64,
    pub(crate) log_level: Level,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) limiters: Vec<FakeLimiter>,
    pub(crate) state_failure: Option<Failure>,
    pub(crate) stores: Vec<(String, HashMap<String, Kept>)>,
    pub(crate) slots: HashMap<String, u32>,
    pub(crate) series: Vec<(String, f64)>,
    pub(crate) answers: VecDeque<Result<Response, Failure>>,
    pub(crate) sent: Vec<(String, Request)>,
    pub(crate) function: String,
    pub(crate) model: String,
}

impl Default for World {
    fn default() -> Self {
        Self {
            meta: ExchangeMeta {
                id: 1,
                request_id: "test-request".to_owned(),
                transport: Transport::Http1,
                received_unix_ms: START_MS,
                messages: 1,
                inputs: 0,
            },
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            query: None,
            headers: Vec::new(),
            body: Vec::new(),
            session_keys: Vec::new(),
            attributes: HashMap::new(),
            principal: None,
            response: None,
            scratch: Vec::new(),
            keys: Vec::new(),
            key_sets: HashMap::new(),
            plaintext: Vec::new(),
            backends: Vec::new(),
            loads: Vec::new(),
            figures: Vec::new(),
            set: None,
            key_hashes: KeyHashes::default(),
            affinity_key: None,
            session: Session::Unknown,
            est_input_tokens: 0,
            excluded: Vec::new(),
            cursor: 0,
            random: VecDeque::new(),
            now_ms: START_MS,
            log_level: Level::Trace,
            logs: Vec::new(),
            limiters: Vec::new(),
            state_failure: None,
            stores: Vec::new(),
            slots: HashMap::new(),
            series: Vec::new(),
            answers: VecDeque::new(),
            sent: Vec::new(),
            function: String::new(),
            model: String::new(),
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::default());
    // Ids stay valid from one exchange to the next, as they do in a gateway.
    static NAMES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Reads or changes the current world.
pub(crate) fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| act(&mut world.borrow_mut()))
}

/// Puts a world in place of the current one.
pub(crate) fn swap(world: World) -> World {
    WORLD.with(|current| current.replace(world))
}

/// Id of a name, from 1.
pub(crate) fn intern(name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    NAMES.with(|names| {
        let mut names = names.borrow_mut();
        let at = names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            });
        u32::try_from(at + 1).unwrap_or(0)
    })
}

/// Text of an id.
pub(crate) fn name_of(id: u32) -> String {
    let at = (id as usize).wrapping_sub(1);
    NAMES.with(|names| names.borrow().get(at).cloned().unwrap_or_default())
}

/// A stable hash of 53 bits; not xxh3, which only the real host has.
pub(crate) fn hash53(data: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in data {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV leaves short inputs alike in the high bits, which rendezvous compares first.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash ^ (hash >> 32)) >> 11
}

/// Where the fake clock starts.
const START_MS: u64 = 1_700_000_000_000;
