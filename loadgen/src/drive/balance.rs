//! Which endpoint a request goes to: the one with the fewest open requests, a seeded chance among equals.
//!
//! One balancer sees all requests, so it compares all endpoints; with the few dozens of a fleet that costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Uri;

use crate::random::Random;

/// The endpoints and their open requests.
#[derive(Debug)]
pub struct Balancer {
    endpoints: Vec<Endpoint>,
    random: Random,
}

#[derive(Debug)]
struct Endpoint {
    uri: Uri,
    open: Arc<AtomicUsize>,
}

/// One open request at an endpoint, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    uri: Uri,
    open: Arc<AtomicUsize>,
}

impl Lease {
    /// Where the request goes.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Balancer {
    /// A balancer without endpoints.
    pub fn new(seed: u64) -> Self {
        Balancer { endpoints: Vec::new(), random: Random::new(seed) }
    }

    /// From now on these are the endpoints; those that stay keep their count.
    pub fn set(&mut self, uris: Vec<Uri>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for uri in uris {
            if self.endpoints.iter().any(|known| known.uri == uri) {
                continue;
            }
            let known = before.iter().position(|known| known.uri == uri).map(|at| before.swap_remove(at));
            self.endpoints.push(known.unwrap_or_else(|| Endpoint { uri, open: Arc::default() }));
        }
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint of the next request; another than `avoid` where there is one. `None` without endpoints.
    pub fn pick(&mut self, avoid: Option<&Uri>) -> Option<Lease> {
        let alone = self.endpoints.len() == 1;
        let mut best: Option<&Endpoint> = None;
        let mut fewest = usize::MAX;
        let mut equals = 0;
        for endpoint in self.endpoints.iter().filter(|endpoint| alone || avoid != Some(&endpoint.uri)) {
            let open = endpoint.open.load(Ordering::SeqCst);
            if open < fewest {
                (best, fewest, equals) = (Some(endpoint), open, 1);
            } else if open == fewest {
                // The nth of equals replaces the ones before with the chance 1/n, so each has the same.
                equals += 1;
                if self.random.below(equals) == 0 {
                    best = Some(endpoint);
                }
            }
        }
        best.map(|endpoint| {
            endpoint.open.fetch_add(1, Ordering::SeqCst);
            Lease { uri: endpoint.uri.clone(), open: Arc::clone(&endpoint.open) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::uri;

    fn uris(ports: &[u16]) -> Vec<Uri> {
        ports.iter().map(|port| uri(&format!("127.0.0.1:{port}")).unwrap()).collect()
    }

    fn port(lease: &Lease) -> u16 {
        lease.uri().port_u16().unwrap()
    }

    #[test]
    fn the_one_with_the_fewest_open_requests_is_next() {
        let mut balancer = Balancer::new(1);
        balancer.set(uris(&[1, 2, 3]));
        let mut leases: Vec<Lease> = (0..6).map(|_| balancer.pick(None).unwrap()).collect();
        let mut ports: Vec<u16> = leases.iter().map(port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 1, 2, 2, 3, 3]);
        leases.retain(|lease| port(lease) != 2);
        assert_eq!([balancer.pick(None).as_ref().map(port), balancer.pick(None).as_ref().map(port)], [Some(2), Some(2)]);
    }

    #[test]
    fn equals_share_and_the_same_seed_shares_alike() {
        let picks = |seed| {
            let mut balancer = Balancer::new(seed);
            balancer.set(uris(&[1, 2, 3]));
            (0..3_000).map(|_| port(&balancer.pick(None).unwrap())).collect::<Vec<_>>()
        };
        let one = picks(4);
        assert_eq!(one, picks(4));
        for wanted in 1..=3 {
            assert!(one.iter().filter(|port| **port == wanted).count().abs_diff(1_000) < 110);
        }
    }

    #[test]
    fn endpoints_that_stay_keep_their_open_requests() {
        let mut balancer = Balancer::new(1);
        balancer.set(uris(&[1]));
        let _open = balancer.pick(None).unwrap();
        balancer.set(uris(&[2, 1, 2]));
        assert_eq!(balancer.len(), 2);
        assert_eq!(balancer.pick(None).as_ref().map(port), Some(2));
    }

    #[test]
    fn a_second_attempt_goes_elsewhere_where_there_is_an_elsewhere() {
        let mut balancer = Balancer::new(1);
        let one = uris(&[1]).remove(0);
        assert!(balancer.pick(None).is_none() && balancer.is_empty());
        balancer.set(uris(&[1]));
        assert_eq!(balancer.pick(Some(&one)).as_ref().map(port), Some(1));
        balancer.set(uris(&[1, 2]));
        let _held: Vec<Lease> = (0..4).map(|_| balancer.pick(Some(&one)).unwrap()).inspect(|lease| assert_eq!(port(lease), 2)).collect();
    }
}
