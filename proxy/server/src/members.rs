//! Who serves a cluster's models at this moment: its endpoints, whose names may come to point
//! elsewhere, and workers, which come and go.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use weir_config::IpFamily;
use weir_routing::{Cluster, ClusterSpec, Demand, Fleet, MemberSpec};

use crate::names::Name;
use crate::upstream::{IdleByAddress, IdleLinks};
use crate::workers::dial::TunnelDial;
use crate::workers::observed::Observation;
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

impl Target {
    /// Counts an exchange that is on its way to a worker, which is told of it.
    pub(crate) fn observe(&self, demand: &Demand) -> Option<Observation> {
        match &self.way {
            Way::Tcp(..) => None,
            Way::Tunnel(seat) => Some(seat.observer.begin(demand.input_tokens, demand.priority)),
        }
    }
}

/// How a backend is reached.
#[derive(Clone)]
pub(crate) enum Way {
    /// By its address. Plaintext connections that wait for the next request are kept beside it.
    Tcp(SocketAddr, Arc<IdleLinks>),
    /// Through the tunnel it has dialled in by. Streams that wait for the next request are kept
    /// beside it.
    Tunnel(Arc<Seat>),
}

/// What the config says of a cluster's members.
#[derive(Clone)]
pub(crate) struct Declared {
    /// Without members.
    pub(crate) spec: ClusterSpec,
    /// Its endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Of addresses of both families these are taken.
    pub(crate) prefer: IpFamily,
    /// Exchanges in progress with each; 0 = no limit.
    pub(crate) max_concurrency: u32,
    /// The name in their certificates; none: plaintext.
    pub(crate) sni: Option<String>,
    /// How pingora's connector treats their connections.
    pub(crate) options: PeerOptions,
    /// Where connections are kept.
    pub(crate) idle: Arc<IdleByAddress>,
}

/// One endpoint of the config.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `host:port` as it was written.
    pub(crate) text: String,
    /// Where that is.
    pub(crate) place: Place,
    /// Its share.
    pub(crate) weight: u32,
    /// What goes into `host`.
    pub(crate) authority: HeaderValue,
}

/// Where an endpoint is.
#[derive(Clone)]
pub(crate) enum Place {
    /// At the address that was written.
    Fixed(SocketAddr),
    /// Wherever the name points.
    Named(Arc<Name>),
}

/// Where a cluster's members come from.
pub(crate) struct Membership {
    declared: Declared,
    /// Whoever has dialled in, for what.
    workers: Option<Pooled>,
    /// Those of the last version that was asked about.
    current: ArcSwapOption<Current>,
    gathering: Mutex<()>,
}

/// The workers among them.
struct Pooled {
    pool: Arc<Pool>,
    /// `function/model`
    serving: Arc<str>,
}

struct Current {
    version: u64,
    members: Arc<Members>,
}

impl Membership {
    /// The endpoints of the config, and nobody else.
    pub(crate) fn new(declared: Declared) -> Self {
        Self::with(declared, None)
    }

    /// The same endpoints and the workers of `pool`, which serve `function/model`. Loads and
    /// cursors are of one model: what dials in for another is another cluster.
    pub(crate) fn and_workers(&self, pool: Arc<Pool>, serving: &str) -> Self {
        let mut declared = self.declared.clone();
        declared.spec.name = format!("{}:{serving}", declared.spec.name);
        let serving = Arc::from(serving);
        Self::with(declared, Some(Pooled { pool, serving }))
    }

    fn with(declared: Declared, workers: Option<Pooled>) -> Self {
        Self {
            declared,
            workers,
            current: ArcSwapOption::empty(),
            gathering: Mutex::new(()),
        }
    }

    /// The members of now. An exchange takes them once: what it has tried are positions in them.
    pub(crate) fn now(&self, fleet: &Fleet, now_ms: u64) -> Arc<Members> {
        let known = || {
            let current = self.current.load();
            let current = current.as_ref()?;
            (current.version == self.version()).then(|| Arc::clone(&current.members))
        };
        if let Some(members) = known() {
            return members;
        }
        let _gathering = self.gathering.lock();
        if let Some(members) = known() {
            return members;
        }
        // From before who is there is looked at: what changes meanwhile is seen the next time.
        let version = self.version();
        let members = Arc::new(self.gather(fleet, now_ms));
        self.current.store(Some(Arc::new(Current {
            version,
            members: Arc::clone(&members),
        })));
        members
    }

    /// The names of its endpoints.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        let endpoints = self.declared.endpoints.iter();
        endpoints.filter_map(|endpoint| match &endpoint.place {
            Place::Fixed(_) => None,
            Place::Named(name) => Some(name),
        })
    }

    /// The `function/model` it is for if nobody has ever served it: a name without a model behind
    /// it.
    pub(crate) fn unheard_of(&self) -> Option<&str> {
        let workers = self.workers.as_ref()?;
        let unheard_of = self.declared.endpoints.is_empty() && !workers.pool.is_known();
        unheard_of.then_some(&*workers.serving)
    }

    /// Each part only ever grows, so an equal sum means that none has changed.
    fn version(&self) -> u64 {
        let workers = self.workers.as_ref();
        let pool = workers.map_or(0, |workers| workers.pool.version());
        self.names()
            .fold(pool, |sum, name| sum.wrapping_add(name.version()))
    }

    fn gather(&self, fleet: &Fleet, now_ms: u64) -> Members {
        let declared = &self.declared;
        let mut gathered = Gathered {
            spec: declared.spec.clone(),
            targets: Vec::new(),
            known: HashSet::new(),
        };
        for endpoint in &declared.endpoints {
            gathered.endpoint(declared, endpoint);
        }
        let Gathered {
            mut spec,
            mut targets,
            mut known,
        } = gathered;
        let seats = self.workers.as_ref().map(|workers| workers.pool.seats());
        let mut seats = seats.unwrap_or_default();
        // A worker that calls itself as an endpoint is called is not taken for it.
        seats.retain(|seat| known.insert(seat.link.worker.to_string()));
        spec.members.extend(seats.iter().map(|seat| MemberSpec {
            domain: seat.domain.to_string(),
            max_concurrency: declared.max_concurrency,
            ..MemberSpec::new(&seat.link.worker, 1)
        }));
        let cluster = fleet.cluster(&spec, now_ms);
        let joined = cluster.backends().iter().skip(targets.len());
        for (member, seat) in joined.zip(&seats) {
            seat.attach(&member.backend, now_ms);
        }
        targets.extend(seats.iter().map(|seat| declared.through_tunnel(seat)));
        Members { cluster, targets }
    }
}

/// Endpoints on their way to members.
struct Gathered {
    spec: ClusterSpec,
    targets: Vec<Target>,
    /// Ids that are members.
    known: HashSet<String>,
}

impl Gathered {
    /// An endpoint with one address is a backend that is called as it was written. Of one with
    /// several each is a backend of its own, called by its address.
    fn endpoint(&mut self, declared: &Declared, endpoint: &Endpoint) {
        let name = match &endpoint.place {
            Place::Fixed(address) => return self.add(declared, endpoint, *address, None),
            Place::Named(name) => name,
        };
        let addresses = name.addresses();
        let preferred =
            |address: &&SocketAddr| address.is_ipv4() == matches!(declared.prefer, IpFamily::Ipv4);
        let any = addresses.iter().any(|address| preferred(&address));
        let taken = addresses
            .iter()
            .filter(|address| !any || preferred(address))
            .copied();
        if { taken.clone() }.nth(1).is_none() {
            return taken.for_each(|address| self.add(declared, endpoint, address, None));
        }
        for address in taken {
            self.add(declared, endpoint, address, Some(address.to_string()));
        }
    }

    fn add(
        &mut self,
        declared: &Declared,
        endpoint: &Endpoint,
        address: SocketAddr,
        id: Option<String>,
    ) {
        let id = id.unwrap_or_else(|| endpoint.text.clone());
        self.spec.members.push(MemberSpec {
            max_concurrency: declared.max_concurrency,
            ..MemberSpec::new(&id, endpoint.weight)
        });
        // Two names may share an address: that is one backend with the weight of both.
        if self.known.insert(id) {
            self.targets.push(declared.at(address, endpoint));
        }
    }
}

impl Declared {
    fn at(&self, address: SocketAddr, endpoint: &Endpoint) -> Target {
        let sni = self.sni.clone().unwrap_or_default();
        let mut peer = HttpPeer::new(address, self.sni.is_some(), sni);
        peer.options = self.options.clone();
        Target {
            way: Way::Tcp(address, self.idle.of(address)),
            peer,
            authority: endpoint.authority.clone(),
            plain: self.sni.is_none() && self.options.alpn == ALPN::H1,
        }
    }

    fn through_tunnel(&self, seat: &Arc<Seat>) -> Target {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::names::tests::{point, pointing};

    fn membership(endpoints: &[(&str, Place, u32)], prefer: IpFamily) -> Membership {
        let endpoint = |(text, place, weight): &(&str, Place, u32)| Endpoint {
            text: (*text).to_owned(),
            place: place.clone(),
            weight: *weight,
            authority: HeaderValue::from_str(text).unwrap(),
        };
        Membership::new(Declared {
            spec: ClusterSpec::new("c", Vec::new()),
            endpoints: endpoints.iter().map(endpoint).collect(),
            prefer,
            max_concurrency: 0,
            sni: None,
            options: PeerOptions::new(),
            idle: Arc::default(),
        })
    }

    /// Id, weight and address of each backend, as targets are looked up.
    fn listed(members: &Members) -> Vec<String> {
        assert_eq!(members.cluster.backends().len(), members.targets.len());
        let backends = members.cluster.backends().iter();
        let line = |member: &weir_routing::Member| {
            let target = &members.targets[member.index as usize];
            let Way::Tcp(address, _) = &target.way else {
                unreachable!("no worker has dialled in");
            };
            assert_eq!(target.peer._address.to_string(), address.to_string());
            format!("{} x{} at {address}", member.backend.id(), member.weight)
        };
        backends.map(line).collect()
    }

    fn fixed(address: &str) -> Place {
        Place::Fixed(address.parse().unwrap())
    }

    #[test]
    fn a_name_is_as_many_backends_as_it_has_addresses() {
        let fleet = Fleet::new();
        let name = pointing("pods:80", &["10.0.0.1:80"]);
        let endpoints = [
            ("10.0.0.9:80", fixed("10.0.0.9:80"), 1),
            ("pods:80", Place::Named(Arc::clone(&name)), 3),
        ];
        let membership = membership(&endpoints, IpFamily::Ipv4);
        let one = membership.now(&fleet, 0);
        assert_eq!(
            listed(&one),
            ["10.0.0.9:80 x1 at 10.0.0.9:80", "pods:80 x3 at 10.0.0.1:80"]
        );
        assert!(Arc::ptr_eq(&one, &membership.now(&fleet, 0)));
        let running = one.cluster.backends()[0].reserve().unwrap();
        point(&name, &["10.0.0.1:80", "10.0.0.2:80"]);
        let two = membership.now(&fleet, 0);
        assert_eq!(
            listed(&two)[1..],
            [
                "10.0.0.1:80 x3 at 10.0.0.1:80",
                "10.0.0.2:80 x3 at 10.0.0.2:80"
            ]
        );
        assert_eq!(
            two.cluster.backends()[0].backend.running(),
            1,
            "who stays keeps its counters"
        );
        drop(running);
        assert_eq!(two.targets[1].authority, "pods:80");
        point(&name, &["10.0.0.7:80"]);
        assert_eq!(
            listed(&membership.now(&fleet, 0))[1..],
            ["pods:80 x3 at 10.0.0.7:80"]
        );
    }

    #[test]
    fn an_address_of_two_names_is_one_backend() {
        let [one, other] = [
            ["10.0.0.1:80", "10.0.0.2:80"],
            ["10.0.0.2:80", "10.0.0.3:80"],
        ];
        let endpoints = [
            ("a:80", Place::Named(pointing("a:80", &one)), 1),
            ("b:80", Place::Named(pointing("b:80", &other)), 2),
        ];
        let members = membership(&endpoints, IpFamily::Ipv4).now(&Fleet::new(), 0);
        assert_eq!(
            listed(&members),
            [
                "10.0.0.1:80 x1 at 10.0.0.1:80",
                "10.0.0.2:80 x3 at 10.0.0.2:80",
                "10.0.0.3:80 x2 at 10.0.0.3:80"
            ]
        );
    }

    #[test]
    fn one_family_is_taken() {
        let table: [(&[&str], IpFamily, &str); 4] = [
            (
                &["127.0.0.1:80", "[::1]:80"],
                IpFamily::Ipv4,
                "127.0.0.1:80",
            ),
            (&["127.0.0.1:80", "[::1]:80"], IpFamily::Ipv6, "[::1]:80"),
            (&["[::1]:80"], IpFamily::Ipv4, "[::1]:80"),
            (&["127.0.0.1:80"], IpFamily::Ipv6, "127.0.0.1:80"),
        ];
        for (addresses, prefer, expected) in table {
            let name = pointing("localhost:80", addresses);
            let endpoints = [("localhost:80", Place::Named(name), 1)];
            let members = membership(&endpoints, prefer).now(&Fleet::new(), 0);
            let expected = format!("localhost:80 x1 at {expected}");
            assert_eq!(listed(&members), [expected], "{addresses:?} {prefer:?}");
        }
    }
}
