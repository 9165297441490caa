//! Endpoints with names: where they point is followed while the gateway serves.

use std::net::{IpAddr, SocketAddr};

use weir_tests::caller::{chat, get, send};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::{Gateway, free_address};
use weir_tests::hosts::Hosts;
use weir_tests::simulated::{Settings, Simulated};

/// Model servers on one port of several addresses.
async fn servers(port: u16, addresses: &[IpAddr]) -> Vec<Simulated> {
    let mut servers = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        servers.push(Simulated::at(address, Settings::default()).await);
    }
    servers
}

/// Ids of the backends of the cluster.
async fn backends(gateway: &Gateway) -> Vec<String> {
    let clusters = gateway.admin_json("/clusters").await;
    let backends = clusters["sim"]["backends"].as_array().unwrap();
    let ids = backends.iter().map(|backend| backend["address"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

async fn chats(servers: &[Simulated]) -> Vec<u64> {
    let mut chats = Vec::new();
    for server in servers {
        chats.push(server.chats().await);
    }
    chats
}

async fn ask(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_name_is_followed_wherever_it_points() {
    let addresses: Vec<IpAddr> = [2, 3, 4].map(|last| [127, 0, 0, last].into()).to_vec();
    let [one, two, three] = [0, 1, 2].map(|at| ("pods.test", addresses[at]));
    let hosts = match Hosts::new(&[one]) {
        Ok(hosts) => hosts,
        Err(error) => {
            eprintln!("SKIPPED: a program cannot be given names of its own here: {error}");
            return;
        }
    };
    let port = free_address().port();
    let servers = servers(port, &addresses).await;
    let name = format!("pods.test:{port}");
    let config = ConfigText::new(&[])
        .cluster("slow_start_ms = 0")
        .more("[dns]\nrefresh_ms = 50");
    let config = config
        .text()
        .replace("endpoints = []", &format!("endpoints = [\"{name}\"]"));
    let gateway = Gateway::start_with(&hosts, &config).await;
    assert_eq!(backends(&gateway).await, [name.as_str()]);
    ask(&gateway, 4).await;
    assert_eq!(chats(&servers).await, [4, 0, 0]);

    // Two more: each is a backend, without a new configuration.
    hosts.point(&[three, one, two]);
    let all: Vec<String> = addresses.iter().map(|ip| format!("{ip}:{port}")).collect();
    gateway
        .wait_for("all addresses", async |gateway| {
            backends(gateway).await == all
        })
        .await;
    ask(&gateway, 6).await;
    assert_eq!(chats(&servers).await, [6, 2, 2]);

    // The name is gone: what it was stays, and a reload does not mind. A new name that is nowhere
    // is refused.
    hosts.point(&[]);
    gateway
        .wait_for("the fault to be told", async |gateway| {
            let clusters = gateway.admin_json("/clusters").await;
            let error = &clusters["sim"]["names"][&name]["error"];
            error.as_str().is_some_and(|error| error.contains(&name))
        })
        .await;
    gateway.edit(|text| text.replace("slow_start_ms = 0", "slow_start_ms = 0\nretries = 1"));
    gateway
        .wait_for("the reload", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    gateway.edit(|text| text.replace("pods.test:", "other.test:"));
    gateway
        .wait_for("the refusal", async |gateway| {
            let config = gateway.admin("/config").await.text();
            config.contains("other.test") && config.contains("does not resolve")
        })
        .await;
    assert_eq!(backends(&gateway).await, all);
    ask(&gateway, 3).await;
    assert_eq!(chats(&servers).await, [7, 3, 3]);

    // It comes back elsewhere.
    hosts.point(&[two]);
    gateway
        .wait_for("the new place", async |gateway| {
            backends(gateway).await == [name.as_str()]
        })
        .await;
    ask(&gateway, 4).await;
    assert_eq!(chats(&servers).await, [7, 7, 3]);
    let looked_up = send(gateway.admin_address(), get("/metrics")).await.text();
    for result in ["found", "failed"] {
        let series = format!("weir_name_lookups_total{{result=\"{result}\"}}");
        assert!(looked_up.contains(&series), "{series} in:\n{looked_up}");
    }
}
