//! A side that does not read holds up the other, and memory stays bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_tunnel::Settings;

use crate::rig::{Rig, carry, model_server, within};

const WINDOW: usize = 64 * 1024;

/// More than the window and the system's buffers of a socket hold together.
const PLENTY: usize = 64 << 20;

fn rig() -> Rig {
    Rig::with(Settings {
        stream_window_bytes: WINDOW as u32,
        ..Settings::default()
    })
}

/// Writes until nothing is taken any more; how much was.
async fn fill(writer: &mut (impl AsyncWriteExt + Unpin)) -> usize {
    let mut taken = 0;
    while taken < PLENTY {
        match tokio::time::timeout(Duration::from_millis(500), writer.write(&[7; 8192])).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    taken
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_up_the_model_server() {
    let rig = rig();
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let _carrier = carry(agent.arrivals, address);
    let mut stream = within(tunnel.open()).await.unwrap();
    stream.write_all(b"r").await.unwrap();
    let (mut socket, _) = within(listener.accept()).await.unwrap();
    // A socket that is closed with something unread is reset, which is not meant here.
    assert_eq!(within(socket.read_u8()).await.unwrap(), b'r');
    let taken = within(fill(&mut socket)).await;
    assert!(taken < PLENTY, "nothing held it up");

    // Another stream of the tunnel is not held up by it.
    let mut other = within(tunnel.open()).await.unwrap();
    other.write_all(b"q").await.unwrap();
    let (mut beside, _) = within(listener.accept()).await.unwrap();
    beside.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    within(other.read_exact(&mut answer)).await.unwrap();

    drop(socket);
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest.len(), taken, "what was taken arrives");
}

#[tokio::test]
async fn a_model_server_that_does_not_read_holds_up_the_caller() {
    let rig = rig();
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let _carrier = carry(agent.arrivals, address);
    let mut stream = within(tunnel.open()).await.unwrap();
    let taken = within(fill(&mut stream)).await;
    assert!(taken < PLENTY, "nothing held it up");
    let (mut socket, _) = within(listener.accept()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut seen = Vec::new();
    within(socket.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(seen.len(), taken, "what was taken arrives");
}
