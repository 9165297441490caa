//! bare-proxy LISTEN UPSTREAM: pingora-proxy passing everything through, what the bench compares with.

use std::process::ExitCode;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

/// The same as the gateway's, so that the two differ in the proxy alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = arguments.as_slice() else {
        eprintln!("usage: bare-proxy LISTEN UPSTREAM, both IP:PORT");
        return ExitCode::FAILURE;
    };
    // One thread, as the gateways beside it have.
    let settings = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let passing = PassThrough {
        upstream: upstream.clone(),
    };
    let mut service = http_proxy_service(&server.configuration, passing);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}

struct PassThrough {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.upstream.as_str(),
            false,
            String::new(),
        )))
    }
}
