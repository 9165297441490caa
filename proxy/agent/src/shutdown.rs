//! Telling an agent to drain, or to end at once.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Run,
    Drain,
    End,
}

/// The end that tells. Dropping it drains.
#[derive(Debug)]
pub struct ShutdownHandle(watch::Sender<Wish>);

/// The end that an agent listens to.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Wish>);

impl ShutdownHandle {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(Wish::Run);
        (Self(sender), Shutdown(receiver))
    }

    /// Takes nothing new, lets running streams end within the drain time-out, then ends.
    pub fn drain(&self) {
        self.raise(Wish::Drain);
    }

    /// Ends at once; running streams break.
    pub fn end(&self) {
        self.raise(Wish::End);
    }

    fn raise(&self, wish: Wish) {
        self.0.send_if_modified(|now| {
            let raised = *now < wish;
            *now = (*now).max(wish);
            raised
        });
    }
}

impl Shutdown {
    /// Waits until the agent is to drain or to end.
    pub async fn draining(&mut self) {
        // An error means that the handle is gone, which drains too.
        let _ = self.0.wait_for(|wish| *wish >= Wish::Drain).await;
    }

    /// Waits until the agent is to end at once.
    pub async fn ending(&mut self) {
        if self.0.wait_for(|wish| *wish >= Wish::End).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
