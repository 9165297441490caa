//! Hellos that are accepted, refused, too slow, too large, too new or none at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use weir_tunnel::agent::connect;
use weir_tunnel::{
    CloseCode, Error, Loss, RefusalCode, Refused, Settings, Trust, VERSION, certificates,
};

use crate::rig::{NAME, Rig, hello, identity, welcome, within};

/// A QUIC client that speaks our ALPN, trusts `trust`, and says what a test wants.
async fn raw_connection(address: SocketAddr, trust: &Trust) -> quinn::Connection {
    let Trust::Certificates(trusted) = trust else {
        panic!("a rig has a certificate");
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"weir-tunnel/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    within(endpoint.connect_with(config, address, NAME).unwrap())
        .await
        .unwrap()
}

/// Waits for the close of `connection` while the listener works, which must bring up nobody.
async fn closed_by(rig: &Rig, connection: &quinn::Connection) -> Loss {
    within(async {
        tokio::select! {
            _ = rig.listener.accept() => panic!("what is no hello was brought up"),
            error = connection.closed() => error.into(),
        }
    })
    .await
}

fn code(loss: &Loss) -> CloseCode {
    match loss {
        Loss::Closed { code, .. } => *code,
        other => panic!("not closed by the gateway: {other}"),
    }
}

#[tokio::test]
async fn a_worker_is_welcomed() {
    let rig = Rig::new();
    let (agent, gateway) = rig
        .meet(hello(), |pending| async move {
            assert_eq!(*pending.hello(), hello());
            assert!(pending.address().ip().is_loopback());
            pending.welcome(welcome()).await
        })
        .await;
    let agent = agent.unwrap();
    let (tunnel, _events) = gateway.unwrap();
    assert_eq!(agent.welcome.version, VERSION);
    assert_eq!(agent.welcome.gateway_id, "gateway-1");
    assert_eq!(agent.welcome.heartbeat_ms, 250);
    assert_eq!(agent.welcome.peers, welcome().peers);
    assert!(tunnel.rtt() > Duration::ZERO);
    assert!(!tunnel.is_closed());
}

#[tokio::test]
async fn a_refusal_reaches_the_agent_whole() {
    let rig = Rig::new();
    let refusal = Refused {
        retry_after_ms: 1500,
        ..Refused::new(RefusalCode::Unauthenticated, "the token has expired")
    };
    let (agent, ()) = rig
        .meet(hello(), |pending| pending.refuse(refusal.clone()))
        .await;
    match agent.err() {
        Some(Error::Refused(refused)) => assert_eq!(refused, refusal),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_gateway_by_another_address_refuses_a_second_tunnel() {
    let rig = Rig::new();
    let mut again = hello();
    again.connected_gateways = vec!["other".to_owned(), "gateway-1".to_owned()];
    let (agent, gateway) = rig.meet(again, |pending| pending.welcome(welcome())).await;
    assert!(matches!(gateway.err(), Some(Error::Refused(_))));
    match agent.err() {
        Some(Error::Refused(refused)) => {
            assert_eq!(refused.code(), RefusalCode::AlreadyConnected);
            assert_eq!(refused.gateway_id, "gateway-1");
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn an_agent_may_be_newer_but_not_too_new() {
    let rig = Rig::new();
    let mut newer = hello();
    newer.version = VERSION + 5;
    let (agent, _gateway) = rig.meet(newer, |pending| pending.welcome(welcome())).await;
    assert_eq!(
        agent.unwrap().welcome.version,
        VERSION,
        "the lower of the two"
    );

    let mut too_new = hello();
    (too_new.version, too_new.oldest_version) = (VERSION + 5, VERSION + 1);
    let refused = within(async {
        tokio::select! {
            _ = rig.listener.accept() => panic!("brought up"),
            dialled = rig.dial(too_new) => dialled.err(),
        }
    });
    match refused.await {
        Some(Error::Refused(refused)) => {
            assert_eq!(refused.code(), RefusalCode::UnsupportedVersion);
            assert!(refused.message.contains("update the older"), "{refused:?}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_bad_worker_id_is_refused_by_the_wire() {
    let rig = Rig::new();
    for id in ["", "two words", &"w".repeat(257)] {
        let mut bad = hello();
        bad.worker_id = id.to_owned();
        let refused = within(async {
            tokio::select! {
                _ = rig.listener.accept() => panic!("brought up"),
                dialled = rig.dial(bad) => dialled.err(),
            }
        });
        match refused.await {
            Some(Error::Refused(refused)) => {
                assert_eq!(refused.code(), RefusalCode::InvalidWorkerId, "{id:?}");
            }
            other => panic!("{id:?} was not refused: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_hello_closes_the_connection() {
    let rig = Rig::new();
    // A heartbeat may be this large, a hello not.
    let large = (1_u32 << 20).to_be_bytes().to_vec();
    let garbage = [&[0, 0, 0, 4][..], &[0xff; 4]].concat();
    // A heartbeat before the hello: field 2, empty.
    let early = vec![0, 0, 0, 2, 0x12, 0];
    for bytes in [large, garbage, early] {
        let accepting = raw_connection(rig.address, &rig.trust);
        let connection = within(async {
            tokio::select! {
                _ = rig.listener.accept() => panic!("brought up"),
                connection = accepting => connection,
            }
        })
        .await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let loss = closed_by(&rig, &connection).await;
        assert_eq!(code(&loss), CloseCode::Protocol, "{bytes:?}: {loss}");
    }
}

#[tokio::test]
async fn a_hello_that_does_not_come_ends_the_handshake() {
    let rig = Rig::with(Settings {
        handshake: Duration::from_millis(100),
        ..Settings::default()
    });
    let connection = within(async {
        tokio::select! {
            _ = rig.listener.accept() => panic!("brought up"),
            connection = raw_connection(rig.address, &rig.trust) => connection,
        }
    })
    .await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    // The length of a message, and no message.
    send.write_all(&[0, 0, 0, 9]).await.unwrap();
    assert_eq!(code(&closed_by(&rig, &connection).await), CloseCode::Slow);
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_given_up() {
    let rig = Rig::with(Settings {
        handshake: Duration::from_millis(200),
        ..Settings::default()
    });
    let (dialled, _pending) = rig.meet(hello(), |pending| async move { pending }).await;
    assert!(matches!(dialled.err(), Some(Error::Slow(_))));
}

#[tokio::test]
async fn no_more_hellos_wait_than_may() {
    let rig = Rig::with(Settings {
        pending_max: 2,
        ..Settings::default()
    });
    let (listener, address) = (Arc::new(rig.listener), rig.address);
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (trust, settings) = (rig.trust.clone(), Settings::default());
        dials.spawn(async move {
            connect(address, NAME, &trust, hello(), &settings)
                .await
                .err()
        });
    }
    // Two are brought up and held; the third must not be.
    let (first, second) = within(async {
        (
            listener.accept().await.unwrap(),
            listener.accept().await.unwrap(),
        )
    })
    .await;
    let refused = within(async {
        tokio::select! {
            _ = listener.accept() => panic!("a third was brought up"),
            refused = dials.join_next() => refused.unwrap().unwrap(),
        }
    });
    assert!(matches!(refused.await, Some(Error::Lost(_))));
    drop((first, second));
}

#[tokio::test]
async fn an_agent_trusts_only_whom_it_should() {
    let rig = Rig::new();
    let (_, other) = identity();
    for (trust, name, good) in [
        (&rig.trust, NAME, true),
        // A certificate that is pinned is good for any name.
        (&rig.trust, "elsewhere.test", true),
        (&Trust::Anyone, "elsewhere.test", true),
        (&other, NAME, false),
    ] {
        let dialled = within(async {
            tokio::select! {
                dialled = connect(rig.address, name, trust, hello(), &rig.settings) => dialled,
                () = async {
                    let pending = rig.listener.accept().await.unwrap();
                    let _held = pending.welcome(welcome()).await.unwrap();
                    std::future::pending::<()>().await;
                } => unreachable!(),
            }
        });
        assert_eq!(dialled.await.is_ok(), good, "{name} {trust:?}");
    }
}

#[tokio::test]
async fn a_signed_certificate_is_good_for_its_name_only() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![NAME.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let mut rig = Rig::new();
    let tls =
        weir_tunnel::ServerTls::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes());
    rig.listener.set_tls(&tls.unwrap()).unwrap();
    rig.trust = Trust::Certificates(certificates(root.pem().as_bytes()).unwrap());
    let (agent, _gateway) = rig
        .meet(hello(), |pending| pending.welcome(welcome()))
        .await;
    assert!(agent.is_ok());

    let wrong = within(async {
        tokio::select! {
            _ = rig.listener.accept() => panic!("brought up"),
            dialled = connect(rig.address, "elsewhere.test", &rig.trust, hello(), &rig.settings) => dialled,
        }
    });
    assert!(wrong.await.is_err(), "the name is another");
}

#[tokio::test]
async fn a_certificate_is_replaced_live() {
    let mut rig = Rig::new();
    let (first, tunnel, _events) = rig.tunnel().await;
    let (tls, trust) = identity();
    rig.listener.set_tls(&tls).unwrap();
    let old = within(async {
        tokio::select! {
            _ = rig.listener.accept() => panic!("the old certificate is still shown"),
            dialled = rig.dial(hello()) => dialled,
        }
    });
    assert!(old.await.is_err());
    rig.trust = trust;
    let _second = rig.tunnel().await;
    assert!(!tunnel.is_closed(), "tunnels that are there stay");
    drop(first);
}
