//! One gateway: dialled, served, dialled again, for as long as somebody wants it.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use weir_tunnel::agent::{AgentLink, Arrivals, Connected, Notice, Notices, connect};
use weir_tunnel::{
    CloseCode, Draining, Error, Hello, Loss, NewsPace, RefusalCode, Trust, Welcome, is_news,
};

use crate::backoff::Backoff;
use crate::carry::carry;
use crate::error::DialError;
use crate::flags::split_address;
use crate::roster::Roster;
use crate::settings::Token;
use crate::shutdown::Shutdown;
use crate::worker::Worker;

/// Keeps a tunnel to the gateway at `address` until the agent drains, or nobody wants it.
pub(crate) async fn keep(
    worker: Arc<Worker>,
    roster: Arc<Roster>,
    address: String,
    mut shutdown: Shutdown,
) {
    let mut backoff = Backoff::default();
    let mut met: Option<String> = None;
    loop {
        let epoch = worker.next_epoch();
        let dialled = tokio::select! {
            dialled = dial(&worker, &roster, &address, epoch) => dialled,
            () = shutdown.draining() => break,
        };
        let began = Instant::now();
        let mut asked = Duration::ZERO;
        match dialled {
            Ok(connected) => {
                let gateway = connected.welcome.gateway_id.clone();
                // A gateway that was started anew has another name, and announces anew.
                let before = met.replace(gateway.clone());
                if let Some(before) = before.filter(|before| *before != gateway)
                    && !roster.is_connected(&before)
                {
                    roster.forget(&before);
                }
                let ended = meet(&worker, &roster, &address, epoch, connected, &mut shutdown).await;
                if ended == Ended::Drained {
                    break;
                }
            }
            Err(DialError::Tunnel(Error::Refused(refused)))
                if refused.code() == RefusalCode::AlreadyConnected =>
            {
                stand_by(&roster, &refused.gateway_id, &mut shutdown).await;
            }
            Err(error) => {
                worker.counters.dial_failure();
                let source = error.source().map(ToString::to_string);
                tracing::warn!(address, %error, source, "cannot reach the gateway");
                if let DialError::Tunnel(Error::Refused(refused)) = error {
                    asked = Duration::from_millis(refused.retry_after_ms);
                }
            }
        }
        if !roster.is_wanted(&address) {
            tracing::info!(address, "nobody announces this gateway any more");
            break;
        }
        let wait = backoff.next(began.elapsed(), asked, fastrand::f64());
        tokio::select! {
            () = sleep(wait) => {}
            () = shutdown.draining() => break,
        }
    }
    if let Some(gateway) = met.filter(|gateway| !roster.is_connected(gateway)) {
        roster.forget(&gateway);
    }
}

/// Waits while `gateway` has a tunnel by another address; looks again after a while, for the
/// address may have come to mean another gateway.
async fn stand_by(roster: &Roster, gateway: &str, shutdown: &mut Shutdown) {
    let mut changes = roster.changes();
    let free = async {
        while roster.is_connected(gateway) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = timeout(STAND_BY, free) => {}
        () = shutdown.draining() => {}
    }
}

/// Tries the addresses behind a name one by one.
async fn dial(
    worker: &Worker,
    roster: &Roster,
    address: &str,
    epoch: u64,
) -> Result<Connected, DialError> {
    let settings = &worker.settings;
    let host = split_address(address).map_or(address, |(host, _)| host);
    let name = settings.server_name.as_deref().unwrap_or(host);
    let mut hello = Hello::new(&settings.worker_id, epoch, &token(&settings.token)?);
    hello.agent = env!("CARGO_PKG_NAME").to_owned();
    hello.agent_version = env!("CARGO_PKG_VERSION").to_owned();
    hello.connected_gateways = roster.connected().into_keys().collect();
    let found = timeout(settings.tunnel.handshake, lookup_host(address))
        .await
        .unwrap_or(Err(ErrorKind::TimedOut.into()))
        .map_err(DialError::Resolve)?;
    let mut last = DialError::Resolve(ErrorKind::NotFound.into());
    for address in found.take(ADDRESSES_MAX) {
        let trust: &Trust = &settings.trust;
        match connect(address, name, trust, hello.clone(), &settings.tunnel).await {
            // A refusal is an answer: another address of the same gateway would give the same.
            Err(error @ Error::Refused(_)) => return Err(error.into()),
            Err(error) => last = error.into(),
            Ok(connected) => return Ok(connected),
        }
    }
    Err(last)
}

fn token(token: &Token) -> Result<String, DialError> {
    match token {
        Token::None => Ok(String::new()),
        Token::Text(text) => Ok(text.clone()),
        Token::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(source) => Err(DialError::Token {
                path: path.clone(),
                source,
            }),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The agent has ended the tunnel.
    Drained,
    Lost,
}

async fn meet(
    worker: &Arc<Worker>,
    roster: &Roster,
    address: &str,
    epoch: u64,
    connected: Connected,
    shutdown: &mut Shutdown,
) -> Ended {
    let Welcome {
        gateway_id,
        peers,
        heartbeat_ms,
        ..
    } = connected.welcome.clone();
    if !roster.claim(&gateway_id, address, epoch) {
        connected
            .link
            .close(CloseCode::Superseded, "there is a newer tunnel")
            .await;
        return Ended::Lost;
    }
    tracing::info!(address, gateway = gateway_id, "the tunnel is up");
    worker.counters.tunnel();
    roster.announce(&gateway_id, peers);
    let session = Session {
        worker: Arc::clone(worker),
        link: connected.link.clone(),
        beat: beat(worker, heartbeat_ms),
        news: worker.news(),
        observations: worker.observations(),
        said: BTreeMap::new(),
        pace: NewsPace::new(),
        streams: JoinSet::new(),
        drain: None,
    };
    let ended = session
        .serve(
            roster,
            &gateway_id,
            connected.arrivals,
            connected.notices,
            shutdown,
        )
        .await;
    roster.release(&gateway_id, epoch);
    if !roster.is_connected(&gateway_id) {
        worker.forget(&gateway_id);
    }
    match ended {
        None => Ended::Drained,
        Some(loss) => {
            tracing::warn!(address, gateway = gateway_id, %loss, "the tunnel is lost");
            Ended::Lost
        }
    }
}

fn beat(worker: &Worker, asked_ms: u32) -> Interval {
    let asked = Duration::from_millis(asked_ms.into());
    let pace = if asked.is_zero() {
        worker.settings.heartbeat
    } else {
        asked.clamp(BEAT_MIN, BEAT_MAX)
    };
    let mut beat = interval(pace);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// A tunnel that is up.
struct Session {
    worker: Arc<Worker>,
    link: AgentLink,
    beat: Interval,
    news: watch::Receiver<u64>,
    observations: watch::Receiver<u64>,
    /// The queues of the last heartbeat, milliseconds by model.
    said: BTreeMap<String, f64>,
    /// Heartbeats before their time.
    pace: NewsPace,
    streams: JoinSet<()>,
    /// Once draining: when streams that gateways opened before they heard of it have arrived.
    drain: Option<Instant>,
}

impl Session {
    /// Serves until the tunnel is lost; `None` when the agent ends it itself.
    async fn serve(
        mut self,
        roster: &Roster,
        gateway: &str,
        mut arrivals: Arrivals,
        mut notices: Notices,
        shutdown: &mut Shutdown,
    ) -> Option<Loss> {
        if self.worker.drains_until().is_some() {
            // It was told before this tunnel was listening for it.
            self.news.mark_changed();
        }
        loop {
            let over = self.over();
            let sent = tokio::select! {
                Some(arrival) = arrivals.next() => {
                    self.streams.spawn(carry(Arc::clone(&self.worker), arrival));
                    Ok(())
                }
                Some(_) = self.streams.join_next() => Ok(()),
                notice = notices.next() => match notice {
                    Notice::Closed(loss) => return Some(loss),
                    notice => {
                        self.hear(roster, gateway, notice);
                        Ok(())
                    }
                },
                _ = self.beat.tick() => self.beat().await,
                Ok(()) = self.news.changed() => self.tell().await,
                Ok(()) = self.observations.changed() => {
                    self.look();
                    Ok(())
                }
                () = self.pace.due() => self.beat().await,
                () = shutdown.ending() => {
                    self.link.close(CloseCode::Done, "the agent was told to end at once").await;
                    return None;
                }
                () = until(over) => {
                    let reason = if self.streams.is_empty() { "drained" } else { "the time to drain is over" };
                    self.link.close(CloseCode::Drained, reason).await;
                    return None;
                }
            };
            if let Err(error) = sent {
                // The end of the tunnel comes as a notice.
                tracing::debug!(%error, "a message to the gateway was not sent");
            }
        }
    }

    fn hear(&self, roster: &Roster, gateway: &str, notice: Notice) {
        match notice {
            Notice::Peers(peers) => roster.announce(gateway, peers),
            Notice::Observed(observed) => self.worker.observe(gateway, observed),
            Notice::Draining(draining) => {
                tracing::info!(gateway, reason = draining.reason, "the gateway is draining");
            }
            Notice::Refused(refused) => {
                let code = refused.code().name();
                tracing::warn!(
                    gateway,
                    code,
                    message = refused.message,
                    "the gateway takes the worker no longer"
                );
            }
            Notice::Closed(_) => {}
        }
    }

    /// Something important has changed: the gateway hears of it now.
    async fn tell(&mut self) -> Result<(), Error> {
        self.beat.reset();
        if self.drain.is_none() && self.worker.drains_until().is_some() {
            self.drain = Some(Instant::now() + DRAIN_GRACE.max(self.link.rtt() * 4));
            let timeout_ms = self.worker.settings.drain_timeout.as_millis() as u64;
            let draining = Draining {
                reason: "the agent was told to end".to_owned(),
                timeout_ms,
            };
            self.link.send_draining(draining).await?;
        }
        self.beat().await
    }

    async fn beat(&mut self) -> Result<(), Error> {
        self.said = self.worker.queues_ms();
        self.pace.told();
        self.link.send_heartbeat(self.worker.heartbeat()).await
    }

    /// A gateway has told of its requests: the others hear of it now if that changes much.
    fn look(&mut self) {
        let said = |model| self.said.get(model).copied().unwrap_or_default();
        let queues_ms = self.worker.queues_ms();
        let mut queues_ms = queues_ms.iter();
        if queues_ms.any(|(model, now_ms)| is_news(said(model), *now_ms)) {
            self.pace.hurry();
        }
    }

    /// When a drain is over.
    fn over(&self) -> Option<Instant> {
        let grace = self.drain?;
        let latest = self.worker.drains_until()?;
        Some(if self.streams.is_empty() {
            grace.min(latest)
        } else {
            latest
        })
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Addresses tried behind one name.
const ADDRESSES_MAX: usize = 8;

/// Bounds to the pace that a gateway may ask for.
const BEAT_MIN: Duration = Duration::from_millis(50);
const BEAT_MAX: Duration = Duration::from_secs(60);

/// How long a draining tunnel stays for streams that are on their way, so that they are refused
/// as undelivered and not lost.
const DRAIN_GRACE: Duration = Duration::from_millis(300);

const STAND_BY: Duration = Duration::from_secs(60);
