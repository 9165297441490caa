//! Programs under test: started with their log captured, watched, measured, killed at the end.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Pid;
pub use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A running program. Dropping it kills the program and waits for its end.
pub struct Process {
    child: Child,
    log: Log,
}

impl Process {
    /// Starts `command` without input; its two outputs become the [`Process::log`].
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = Log::default();
        log.follow(child.stdout.take());
        log.follow(child.stderr.take());
        Ok(Self { child, log })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written so far: the last few MiB of it.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until `GET path` is answered with a status of 2xx.
    ///
    /// # Errors
    /// When the program ends before, or the deadline passes; the message carries the log.
    pub async fn wait_until_answers(
        &mut self,
        address: SocketAddr,
        path: &str,
        deadline: Duration,
    ) -> io::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let status = tokio::time::timeout_at(end, status_of(address, path)).await;
            if let Ok(Ok(200..=299)) = status {
                return Ok(());
            }
            self.check_waiting(
                end,
                &format!("an answer of http://{address}{path} ({status:?})"),
            )
            .await?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the log contains `text`.
    ///
    /// # Errors
    /// As [`Process::wait_until_answers`].
    pub async fn wait_for_log(&mut self, text: &str, deadline: Duration) -> io::Result<()> {
        let end = Instant::now() + deadline;
        while !self.log().contains(text) {
            self.check_waiting(end, &format!("{text:?} in the log"))
                .await?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// When it still runs at the deadline; the message carries the log.
    pub async fn wait_for_exit(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.log.settle().await;
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(self.failure(io::ErrorKind::TimedOut, "the program does not end"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends a signal, for example [`Signal::TERM`].
    ///
    /// # Errors
    /// When the program has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("process id out of range"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// CPU time used so far, see [`cpu_us`].
    ///
    /// # Errors
    /// When the program has ended.
    pub fn cpu_us(&self) -> io::Result<u64> {
        cpu_us(self.id())
    }

    /// Resident memory, see [`rss_bytes`].
    ///
    /// # Errors
    /// When the program has ended.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        rss_bytes(self.id())
    }

    async fn check_waiting(&mut self, end: Instant, what: &str) -> io::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.log.settle().await;
            return Err(self.failure(
                io::ErrorKind::BrokenPipe,
                &format!("ended ({status}) before {what}"),
            ));
        }
        if Instant::now() >= end {
            return Err(self.failure(
                io::ErrorKind::TimedOut,
                &format!("timed out waiting for {what}"),
            ));
        }
        Ok(())
    }

    fn failure(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        io::Error::new(kind, format!("{what}; its log:\n{}", self.log()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the program has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// User and system time a process has used, all threads, in microseconds. The kernel counts in
/// ticks of usually 10,000 µs: measure over seconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_us(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = stat_ticks(&stat).ok_or_else(|| unreadable("stat"))?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Physical memory of a process in bytes (`VmRSS`).
///
/// # Errors
/// When there is no such process, or it has ended and was not waited for.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or_else(|| unreadable("status"))? * 1024)
}

/// A port of the loopback interface that is free now. Prefer port 0 where the program can tell
/// which one it got: another program may take this one first.
///
/// # Errors
/// When no port can be bound.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Status of the answer to a plain `GET`.
///
/// # Errors
/// When nothing listens or what answers is not HTTP.
pub async fn status_of(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    let status = start
        .get(9..)
        .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP status"))
}

/// Fields 14 and 15 of `/proc/PID/stat`; the program's name before them may contain anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the process's {file} has no such field"),
    )
}

#[derive(Default)]
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Log {
    /// Collects an output on a thread of its own, which ends with the output.
    fn follow(&mut self, output: Option<impl Read + Send + 'static>) {
        let Some(mut output) = output else { return };
        let log = Arc::clone(&self.bytes);
        self.readers.push(std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(bytes @ 1..) = output.read(&mut buffer) {
                append(&log, buffer.get(..bytes).unwrap_or_default());
            }
        }));
    }

    /// Lets the readers catch up after the program's end; children it left behind may hold its
    /// outputs open for ever, so not for long.
    async fn settle(&self) {
        let end = Instant::now() + SETTLE_MAX;
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < end {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

fn append(log: &Mutex<Vec<u8>>, bytes: &[u8]) {
    let mut log = lock(log);
    if log.len() > LOG_BYTES_MAX {
        log.drain(..LOG_BYTES_MAX / 2);
    }
    log.extend_from_slice(bytes);
}

fn lock(log: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

const SETTLE_MAX: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LOG_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        Process::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn ticks_behind_any_name() {
        let rest = "R 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        for name in ["sh", "a b", "x) R 1 (y"] {
            assert_eq!(
                stat_ticks(&format!("7 ({name}) {rest}")),
                Some(42),
                "{name}"
            );
        }
        assert_eq!(stat_ticks("7 (sh) R 1"), None);
    }

    #[tokio::test]
    async fn output_and_signals() {
        let mut process = shell(
            "trap 'echo bye; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.01; done",
        );
        process.wait_for_log("out", DEADLINE).await.unwrap();
        process.wait_for_log("err", DEADLINE).await.unwrap();
        assert!(process.rss_bytes().unwrap() > 0);
        process.signal(Signal::TERM).unwrap();
        assert_eq!(
            process.wait_for_exit(DEADLINE).await.unwrap().code(),
            Some(3)
        );
        let error = process.wait_for_log("never", DEADLINE).await.unwrap_err();
        assert!(error.to_string().contains("bye"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_answer() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let mut silent = shell("exec sleep 1000");
        let error = silent
            .wait_until_answers(address, "/", Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid = silent.id();
        drop(silent);
        assert!(rss_bytes(pid).is_err(), "killed and waited for");
    }

    #[tokio::test]
    async fn busy_programs_use_cpu() {
        let process = shell("while :; do :; done");
        let end = Instant::now() + DEADLINE;
        while process.cpu_us().unwrap() == 0 {
            assert!(Instant::now() < end);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
