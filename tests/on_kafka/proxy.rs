//! A proxy before a broker, which knows where one request ends and the next begins: it holds the very request, or the answer to it, that a test waits for.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::common::PATIENCE;

/// A kind of request, by its number in Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Produce = 0,
    SyncGroup = 14,
    CreateTopics = 19,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The request, before the broker has it.
    Request,
    /// The answer, when the broker has done what was asked.
    Answer,
}

struct Rule {
    api: Api,
    side: Side,
    /// All of these stand in the request: names of clients, transactions and groups do.
    marks: Vec<String>,
    arrived: Sender<()>,
    goes_on: Receiver<()>,
}

impl Rule {
    fn is_of(&self, request: &[u8]) -> bool {
        let stands = |mark: &String| request.windows(mark.len()).any(|window| window == mark.as_bytes());
        request.get(..2) == Some(&(self.api as u16).to_be_bytes()) && self.marks.iter().all(stands)
    }

    /// Holds until it is let go on; whether it ever is. One that nobody waits for holds nothing.
    fn holds(self) -> bool {
        self.arrived.send(()).is_err() || self.goes_on.recv().is_ok()
    }
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    /// Requests of transactions and positions that have passed.
    passed: Mutex<Vec<Vec<u8>>>,
}

/// It.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

/// The next request that is as it was said, or the answer to it. Dropping it lets it never go on: its connection is closed.
pub(crate) struct Held {
    arrived: Receiver<()>,
    goes_on: Sender<()>,
}

impl Held {
    /// Waits until it is there.
    pub(crate) fn arrives(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("the request never comes");
    }

    pub(crate) fn goes_on(self) {
        self.goes_on.send(()).expect("nothing is held");
    }
}

impl Proxy {
    /// Before the broker at this port, which may come later.
    pub(crate) fn before(broker: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::<Shared>::default());
        let proxy = Proxy { port, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", broker)) {
                    connect(client, broker, &shared);
                }
            }
        });
        proxy
    }

    /// Holds the next one of this kind in which all of these words stand.
    pub(crate) fn hold(&self, side: Side, api: Api, marks: &[&str]) -> Held {
        let (arrived, has_arrived) = channel();
        let (goes_on, is_to_go_on) = channel();
        let marks = marks.iter().map(|mark| (*mark).to_owned()).collect();
        self.shared.rules.lock().unwrap().push(Rule { api, side, marks, arrived, goes_on: is_to_go_on });
        Held { arrived: has_arrived, goes_on }
    }

    /// How many of this kind have passed in which this word stands.
    pub(crate) fn passed(&self, api: Api, mark: &str) -> usize {
        let (arrived, _) = channel();
        let (_, goes_on) = channel();
        let rule = Rule { api, side: Side::Request, marks: vec![mark.to_owned()], arrived, goes_on };
        self.shared.passed.lock().unwrap().iter().filter(|request| rule.is_of(request)).count()
    }
}

/// Answers that are to be held, by the numbers of their requests.
type Answers = Arc<Mutex<HashMap<Vec<u8>, Rule>>>;

fn connect(client: TcpStream, broker: TcpStream, shared: &Arc<Shared>) {
    let answers = Answers::default();
    let copies = |stream: &TcpStream| stream.try_clone().unwrap();
    let (from_client, to_broker, from_broker, to_client) = (copies(&client), copies(&broker), broker, client);
    let (shared, held) = (Arc::clone(shared), Arc::clone(&answers));
    std::thread::spawn(move || {
        pass(from_client, to_broker, |request| {
            let mut rules = shared.rules.lock().unwrap();
            let rule = rules.iter().position(|rule| rule.is_of(request)).map(|place| rules.remove(place));
            drop(rules);
            if let Some(rule) = rule {
                if rule.side == Side::Answer {
                    held.lock().unwrap().insert(request[4..8].to_vec(), rule);
                } else if !rule.holds() {
                    return false;
                }
            }
            if [Api::EndTxn, Api::TxnOffsetCommit].iter().any(|api| request[..2] == (*api as u16).to_be_bytes()) {
                shared.passed.lock().unwrap().push(request.to_vec());
            }
            true
        });
    });
    std::thread::spawn(move || {
        pass(from_broker, to_client, |answer| {
            let rule = answers.lock().unwrap().remove(&answer[..4]);
            rule.is_none_or(Rule::holds)
        });
    });
}

/// Passes on what comes, a message at a time, where `may_go` says so; else, and at the end, both directions are closed.
fn pass(mut from: TcpStream, mut to: TcpStream, may_go: impl Fn(&[u8]) -> bool) {
    let mut next = || -> std::io::Result<bool> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut message)?;
        let goes = may_go(&message);
        if goes {
            to.write_all(&[&length[..], &message].concat())?;
        }
        Ok(goes)
    };
    while next().unwrap_or(false) {}
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
