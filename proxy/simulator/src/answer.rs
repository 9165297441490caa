//! The response body: whole, or a paced stream which can be cut or stall.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::exchange::Exchange;
use crate::plan::{Cut, Plan};
use crate::script::Script;
use crate::stats_stream::Lines;

/// Body of every response.
pub(crate) enum Answer {
    /// All of it at once, without timers or state.
    Whole(Bytes),
    /// Sent as planned for one exchange.
    Staged(Box<Staged>),
    /// Statistics, as long as the caller listens.
    Lines(Box<Lines>),
}

/// A body sent piece by piece.
pub(crate) struct Staged {
    source: Source,
    /// Number of the next piece.
    next: u64,
    end: End,
    pace: Option<Pace>,
    exchange: Exchange,
    /// Pieces were handed over which hyper may not have flushed yet.
    unflushed: bool,
}

enum Source {
    Events(Script),
    /// One piece; the declared length may be longer, as an answer cut short promises more.
    Bytes {
        piece: Bytes,
        declared: u64,
    },
}

/// What happens after the given number of pieces.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Disconnect(u64),
    Stall(u64),
}

struct Pace {
    plan: Plan,
    interval: Duration,
    /// Armed for the time the next token is due.
    sleep: Option<Pin<Box<Sleep>>>,
    due: Instant,
}

impl Answer {
    /// The events of `script`, each token after the first one interval later.
    pub(crate) fn stream(script: Script, plan: Plan, exchange: Exchange) -> Self {
        let end = match plan.cut {
            Cut::Never => End::Complete,
            Cut::Disconnect(after) => End::Disconnect(after),
            Cut::DisconnectHalfway => End::Disconnect(script.events() / 2),
            Cut::Stall(after) => End::Stall(after),
        };
        let interval = plan.interval;
        let pace = interval.map(|interval| Pace {
            plan,
            interval,
            sleep: None,
            due: Instant::now(),
        });
        Self::staged(Source::Events(script), end, pace, exchange)
    }

    /// `body` with its length declared, cut where `cut` says.
    pub(crate) fn unary(body: Bytes, cut: Cut, mut exchange: Exchange) -> Self {
        let declared = body.len() as u64;
        let first = |bytes: u64| {
            body.slice(..usize::try_from(bytes).map_or(body.len(), |bytes| bytes.min(body.len())))
        };
        let (piece, end) = match cut {
            Cut::Never => {
                // Once handed over, the caller's leaving can no longer be told from its reading.
                exchange.finish();
                return Self::Whole(body);
            }
            Cut::Disconnect(after) => (first(after), End::Disconnect(1)),
            Cut::DisconnectHalfway => (first(declared / 2), End::Disconnect(1)),
            Cut::Stall(after) => (first(after), End::Stall(1)),
        };
        Self::staged(Source::Bytes { piece, declared }, end, None, exchange)
    }

    fn staged(source: Source, end: End, pace: Option<Pace>, exchange: Exchange) -> Self {
        Self::Staged(Box::new(Staged {
            source,
            next: 0,
            end,
            pace,
            exchange,
            unflushed: false,
        }))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Staged(staged) => staged.poll(context),
            Self::Lines(lines) => lines
                .poll(context)
                .map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Staged(staged) => match staged.source {
                Source::Bytes { declared, .. } => SizeHint::with_exact(declared),
                Source::Events(_) => SizeHint::default(),
            },
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

impl Staged {
    fn poll(&mut self, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.end {
            End::Disconnect(after) if self.next >= after => return self.disconnect(context),
            // No waker is kept: only the caller's leaving ends this, by dropping the body.
            End::Stall(after) if self.next >= after => return Poll::Pending,
            End::Complete | End::Disconnect(_) | End::Stall(_) => {}
        }
        let piece = match &self.source {
            Source::Bytes { piece, .. } => {
                (self.next == 0 && !piece.is_empty()).then(|| piece.clone())
            }
            Source::Events(script) => {
                let token = script.token(self.next);
                if let (Some(1..), Some(pace)) = (token, &mut self.pace) {
                    std::task::ready!(pace.poll(context, &self.exchange));
                }
                if token.is_some() {
                    self.exchange.emitted(1);
                }
                script.event(self.next)
            }
        };
        self.next += 1;
        match piece {
            Some(piece) => {
                self.unflushed = true;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None if matches!(self.source, Source::Bytes { .. }) => self.poll(context),
            None => {
                self.exchange.finish();
                Poll::Ready(None)
            }
        }
    }

    /// An error as the body's end makes hyper close the connection, or reset the HTTP/2 stream.
    fn disconnect(
        &mut self,
        context: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if std::mem::take(&mut self.unflushed) {
            // hyper throws its write buffer away with the connection: let it flush first.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.exchange.finish();
        Poll::Ready(Some(Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "simulated disconnect",
        ))))
    }
}

impl Pace {
    fn poll(&mut self, context: &mut Context, exchange: &Exchange) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| {
            self.due += exchange.decode_time(self.plan.jittered(self.interval));
            Box::pin(tokio::time::sleep_until(self.due))
        });
        std::task::ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        Poll::Ready(())
    }
}
