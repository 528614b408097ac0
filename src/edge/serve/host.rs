//! By which names the server may be called.
//!
//! A page of another site can make a browser ask for a name of its own that leads to this machine (DNS rebinding); for the browser the
//! answers are then that site's, which may read them and scale fleets. Such a request names the other site as its host. A server on
//! loopback answers only where the host is this machine, or a name that the configuration lists.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::edge::api::Problem;

/// The longest name that an answer repeats; longer ones are cut.
const SHOWN: usize = 80;

/// The names that are answered to.
#[derive(Debug, Clone)]
pub struct Hosts {
    named: Arc<BTreeSet<String>>,
    /// Whether all others are refused.
    checks: bool,
    loopback: bool,
}

impl Hosts {
    /// Those of a server that listens on `address`, and `named` besides. One that does not listen on loopback, and for which none is
    /// named, answers to all: by which name it is called from elsewhere cannot be known.
    pub fn new(address: SocketAddr, named: &[String]) -> Self {
        let loopback = address.ip().is_loopback();
        Hosts { named: Arc::new(named.iter().map(|name| name.to_ascii_lowercase()).collect()), checks: loopback || !named.is_empty(), loopback }
    }

    /// Whether a request to this host, as in its header, is answered.
    pub fn admits(&self, host: &str) -> bool {
        if !self.checks {
            return true;
        }
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address {
            // Whoever writes an address uses no name that could lead elsewhere.
            Ok(address) => !self.loopback || is_this_machine(address) || self.named.contains(&name),
            Err(_) => name == "localhost" || name.ends_with(".localhost") || self.named.contains(&name),
        }
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

/// Answers where the host is one of `hosts`, else says what to do. A request without a host comes from no browser.
pub(super) async fn known(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let host = header.or_else(|| request.uri().host().map(str::to_owned));
    match host.filter(|host| !hosts.admits(host)) {
        None => next.run(request).await,
        Some(host) => {
            let name: String = without_port(&host).chars().take(SHOWN).map(|c| if c.is_control() { '·' } else { c }).collect();
            let mend = format!("call it 127.0.0.1, localhost or [::1], or list the name in the setting hosts, as in hosts: [{name}]");
            Problem::new(StatusCode::MISDIRECTED_REQUEST, format!("this server does not answer to the name {name}"), mend).at("header host").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_this_machine_and_what_is_named_are_answered_and_nothing_else() {
        let hosts = Hosts::new("127.0.0.1:8080".parse().unwrap(), &["Scaling.Example.com".to_owned()]);
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "127.9.9.9",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "[::1]:8080",
            "[::1]",
            "::1",
            "[::ffff:127.0.0.1]:80",
            "scaling.example.com",
            "scaling.example.com:443",
        ] {
            assert!(hosts.admits(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1:8080", "evillocalhost", ""] {
            assert!(!hosts.admits(host), "{host}");
        }
    }

    #[test]
    fn elsewhere_names_are_checked_where_some_are_listed() {
        let address = "0.0.0.0:8080".parse().unwrap();
        assert!(Hosts::new(address, &[]).admits("whatever.example"));
        let hosts = Hosts::new(address, &["scaling.example.com".to_owned()]);
        assert!(hosts.admits("10.0.0.1:8080") && hosts.admits("scaling.example.com") && !hosts.admits("evil.example"));
    }
}
