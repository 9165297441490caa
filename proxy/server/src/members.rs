//! Who serves a cluster's models at this moment: its endpoints, and workers, which come and go.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use weir_routing::{Cluster, ClusterSpec, Fleet, MemberSpec};

use crate::upstream::IdleLinks;
use crate::workers::dial::TunnelDial;
use crate::workers::pool::Pool;
use crate::workers::seat::Seat;

/// Backends and how each is dialled.
pub(crate) struct Members {
    /// The backends and their state.
    pub(crate) cluster: Arc<Cluster>,
    /// By [`weir_routing::Member::index`].
    pub(crate) targets: Vec<Target>,
}

/// One backend as an address.
#[derive(Clone)]
pub(crate) struct Target {
    /// How it is reached.
    pub(crate) way: Way,
    /// For pingora's connector.
    pub(crate) peer: HttpPeer,
    /// Whether it speaks plaintext HTTP/1.1; other backends are dialled by pingora.
    pub(crate) plain: bool,
    /// What goes into `host`.
    pub(crate) authority: HeaderValue,
}

/// How a backend is reached.
#[derive(Clone)]
pub(crate) enum Way {
    /// By its address, resolved when the config was compiled. Plaintext connections that wait for
    /// the next request are kept beside it.
    Tcp(SocketAddr, Arc<IdleLinks>),
    /// Through the tunnel it has dialled in by. Streams that wait for the next request are kept
    /// beside it.
    Tunnel(Arc<Seat>),
}

/// Where a cluster's members come from.
pub(crate) enum Membership {
    /// Endpoints of the config.
    Fixed(Arc<Members>),
    /// Endpoints of the config, if there are any, and whoever has dialled in.
    Workers(Box<WorkerMembership>),
}

/// Members that change with the pool of one model.
pub(crate) struct WorkerMembership {
    pool: Arc<Pool>,
    /// With the endpoints as members.
    spec: ClusterSpec,
    endpoints: Vec<Target>,
    max_concurrency: u32,
    /// How pingora's connector treats their connections.
    options: PeerOptions,
    /// Those of the last version of the pool that was asked about.
    current: ArcSwapOption<Current>,
    gathering: Mutex<()>,
}

struct Current {
    version: u64,
    members: Arc<Members>,
}

impl Membership {
    /// The members of now. An exchange takes them once: what it has tried are positions in them.
    pub(crate) fn now(&self, fleet: &Fleet, now_ms: u64) -> Arc<Members> {
        match self {
            Self::Fixed(members) => Arc::clone(members),
            Self::Workers(workers) => workers.now(fleet, now_ms),
        }
    }

    /// Endpoints of the config.
    pub(crate) fn endpoints(&self) -> &[Target] {
        match self {
            Self::Fixed(members) => &members.targets,
            Self::Workers(workers) => &workers.endpoints,
        }
    }

    /// Whether nobody has ever served it: it is a name without a model behind it.
    pub(crate) fn is_unheard_of(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Workers(workers) => workers.endpoints.is_empty() && !workers.pool.is_known(),
        }
    }
}

impl WorkerMembership {
    /// Members of `spec`, dialled as `endpoints`, and those of `pool`.
    pub(crate) fn new(
        pool: Arc<Pool>,
        spec: ClusterSpec,
        endpoints: Vec<Target>,
        max_concurrency: u32,
        options: PeerOptions,
    ) -> Self {
        Self {
            pool,
            spec,
            endpoints,
            max_concurrency,
            options,
            current: ArcSwapOption::empty(),
            gathering: Mutex::new(()),
        }
    }

    fn now(&self, fleet: &Fleet, now_ms: u64) -> Arc<Members> {
        let known = || {
            let current = self.current.load();
            let current = current.as_ref()?;
            (current.version == self.pool.version()).then(|| Arc::clone(&current.members))
        };
        if let Some(members) = known() {
            return members;
        }
        let _gathering = self.gathering.lock();
        if let Some(members) = known() {
            return members;
        }
        let (version, seats) = self.pool.seats();
        let members = Arc::new(self.gather(&seats, fleet, now_ms));
        self.current.store(Some(Arc::new(Current {
            version,
            members: Arc::clone(&members),
        })));
        members
    }

    fn gather(&self, seats: &[Arc<Seat>], fleet: &Fleet, now_ms: u64) -> Members {
        let mut spec = self.spec.clone();
        spec.members.extend(seats.iter().map(|seat| MemberSpec {
            domain: seat.domain.to_string(),
            max_concurrency: self.max_concurrency,
            ..MemberSpec::new(&seat.link.worker, 1)
        }));
        let cluster = fleet.cluster(&spec, now_ms);
        let joined = cluster.backends().iter().skip(self.endpoints.len());
        for (member, seat) in joined.zip(seats) {
            seat.attach(&member.backend, now_ms);
        }
        let mut targets = self.endpoints.clone();
        targets.extend(seats.iter().map(|seat| self.target(seat)));
        Members { cluster, targets }
    }

    fn target(&self, seat: &Arc<Seat>) -> Target {
        let link = &seat.link;
        let mut peer = HttpPeer::new(link.address(), false, String::new());
        // Connections of one tunnel are no other's, even from the same address.
        peer.group_key = link.epoch ^ weir_host::hash53(link.worker.as_bytes());
        peer.options = self.options.clone();
        peer.options.custom_l4 = Some(Arc::new(TunnelDial(link.tunnel.clone())));
        Target {
            way: Way::Tunnel(Arc::clone(seat)),
            peer,
            plain: self.options.alpn == ALPN::H1,
            authority: HeaderValue::from_static("localhost"),
        }
    }
}
