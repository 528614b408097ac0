//! A Kafka broker on loopback, of its own: fetched and started by the script of the tests, and ended with this process, however that ends.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use loadline::log::kafka::{Options, topics};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::waiting::{PATIENCE, wait_for};

/// How long an answer is waited for before another client asks.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A broker. It ends when its standard input does.
pub(crate) struct Broker {
    /// Where it listens.
    pub(crate) address: String,
    child: Child,
    /// Its own, and its controller's.
    ports: [u16; 2],
    place: PathBuf,
    settings: Vec<String>,
}

/// A port that nobody listens at now, below those that the system gives to whoever connects: one of these could be another's while who listens there is killed and comes back.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 22_000;
    let mut ports =
        std::iter::repeat_with(|| 10_000 + (first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 22_000).filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap_or(0)
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

impl Broker {
    /// Starts one with its files in `place`, and with settings of its own (`NAME=VALUE`).
    pub(crate) fn start(place: &Path, settings: &[&str]) -> anyhow::Result<Broker> {
        let ports = [free_port(), free_port()];
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = spawn(ports, place, &settings)?;
        let mut broker = Broker { address: format!("127.0.0.1:{}", ports[0]), child, ports, place: place.to_owned(), settings };
        broker.is_ready()?;
        Ok(broker)
    }

    fn is_ready(&mut self) -> anyhow::Result<()> {
        let options = Options { prefix: "ready.".to_owned(), replicas: Some(1), ..Options::new(self.address.clone()) };
        let mut refused = None;
        let ready = wait_for("a broker that answers", || {
            self.is_there()?;
            refused = topics::apply(&options, true).err();
            Ok(refused.is_none().then_some(()))
        });
        ready.with_context(|| match refused {
            Some(error) => format!("{error}; see {}", self.place.join("broker.log").display()),
            None => "start a broker".to_owned(),
        })
    }

    /// That it has not ended by itself.
    fn is_there(&mut self) -> anyhow::Result<()> {
        let Some(ended) = self.child.try_wait()? else { return Ok(()) };
        bail!("the broker ended ({ended}); see {}", self.place.join("broker.log").display())
    }

    /// `kill -9`; [`Broker::start_again`] brings it back, with what was on its disk.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let script = self.child.id();
        let path = format!("/proc/{script}/task/{script}/children");
        let children = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let is_java = |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "java");
        let java = children.split_whitespace().find(is_java).with_context(|| format!("there is no broker among the processes {children}"))?;
        let pid = Pid::from_raw(java.parse()?).with_context(|| format!("{java} is no process"))?;
        kill_process(pid, Signal::KILL).context("send SIGKILL to the broker")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it at the same place, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(self.ports, &self.place, &self.settings)?;
        self.is_ready()
    }
}

fn spawn(ports: [u16; 2], place: &Path, settings: &[String]) -> anyhow::Result<Child> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/env/kafka.sh");
    let needs = || format!("run {}: it is in the checkout that this program was built from", script.display());
    // Fetched where it is missing, however long that takes, before anybody waits for an answer.
    let installed = Command::new(&script).arg("install").stdout(Stdio::null()).status().with_context(needs)?;
    ensure!(installed.success(), "{} could not install Kafka ({installed}): see above", script.display());
    std::fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    let said: File = OpenOptions::new().create(true).append(true).open(place.join("script.log"))?;
    let mut command = Command::new(&script);
    command.arg("run").args(ports.map(|port| port.to_string())).arg(place).args(settings);
    command.stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(said).spawn().with_context(needs)
}

/// Waits until no transaction is under way in the topics of an installation: until readers of what is committed see as far as all others.
pub(crate) fn settle(options: &Options) -> anyhow::Result<()> {
    let reader = |isolation: &str| -> anyhow::Result<BaseConsumer> {
        Ok(ClientConfig::new().set("bootstrap.servers", &options.brokers).set("isolation.level", isolation).create()?)
    };
    let (mut all, mut committed) = (reader("read_uncommitted")?, reader("read_committed")?);
    let metadata = all.fetch_metadata(None, PATIENCE)?;
    let topics: Vec<_> = metadata.topics().iter().filter(|topic| topic.name().starts_with(&options.prefix)).collect();
    ensure!(!topics.is_empty(), "there are no topics {}*", options.prefix);
    for topic in topics {
        for partition in topic.partitions() {
            let end = |reader: &BaseConsumer| reader.fetch_watermarks(topic.name(), partition.id(), ANSWERS_WITHIN).map(|range| range.1);
            wait_for(&format!("the transactions in {} to end", topic.name()), || {
                match (end(&committed), end(&all)) {
                    (Ok(committed), Ok(all)) if committed == all => return Ok(Some(())),
                    (Ok(_), Ok(_)) => {}
                    // Who is not told now asks anew.
                    _ => (all, committed) = (reader("read_uncommitted")?, reader("read_committed")?),
                }
                Ok(None)
            })?;
        }
    }
    Ok(())
}
